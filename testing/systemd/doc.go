// Package systemd tests the shim with systemd's cgroup driver, which removes the
// cgroups of a dead container at once. Debian's systemd is process 1 of a PID
// namespace of its own there, with containerd beside it. It holds tests only.
//
// The test binary runs isolated (package isolate) twice: with the host's cgroups,
// and with version 2 alone, which has no controllers then.
package systemd
