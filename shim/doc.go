// Package shim is the bootstrap of containerd-shim-crsc-v1 and puts its parts
// together: containerd's pkg/shim runs the process, [Manager] answers start,
// delete and info, and register adds the task service.
//
// The process is started in three ways by containerd, all through [Run]:
// `start` makes the socket and the serving process (one for each group of
// containers, so a Kubernetes pod has one), without an action it serves, and
// `delete` cleans up after a serving process that is gone.
package shim
