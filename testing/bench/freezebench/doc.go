// Package freezebench measures how long checkpoints stop a container, and what a
// client notices of that.
//
// A small Redis is checkpointed often, while it is idle, while one prober asks
// it back to back, and under the load of 50 connections; then a Redis with 256
// MB of data. Frozen is what the shim reports, from the first task that CRIU
// stops to the last that it lets go. The gap is what the prober sees: its
// longest wait in the time of a checkpoint. As its waits are never zero, and on
// a busy machine sometimes long, the same is measured halfway between two
// checkpoints.
//
// Beside it others do the same to the same Redis: our shim with its images on
// disk; "runc checkpoint --leave-running" in a plain container, and "podman
// container checkpoint --leave-running" in one of podman's, both with the same
// runc and CRIU and without a proxy.
package freezebench
