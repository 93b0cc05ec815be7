// Package cgroup2 tests the shim on a host that has cgroup v2 only, or looks
// like one: where version 1 is mounted as well, the test binary runs isolated
// (package isolate) with the unified hierarchy alone, which then has no
// controllers. It holds tests only.
package cgroup2
