// Package recoverybench measures how long clients stand still when a container
// crashes, and where that time goes.
//
// A small Redis is killed at random moments, first under a light load and then
// under one that keeps the machine busy. What clients noticed is the longest
// wait of any of them around each kill; the phases are those that the shim
// reports of each recovery. One client error, one wrong reply, one increment
// that was lost or applied twice, or one waiting connection that does not go on
// makes the whole benchmark fail.
package recoverybench
