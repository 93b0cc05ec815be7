// Package demo shows, and measures, what clients notice of crashes.
//
// [Run] brings up an environment of its own, runs Redis in it, drives it with
// package load, kills the container's init with SIGKILL at random moments, and
// compares what clients saw with what is stored. What a recovery took is read
// from the status file that the shim keeps for each protected container.
//
// The demo is a handful of crashes with a table for people; the soak test is
// the same with hundreds of crashes and a watch on the shim's memory,
// descriptors, threads, mounts and disk. Neither leaves anything behind, also
// when it is interrupted.
package demo
