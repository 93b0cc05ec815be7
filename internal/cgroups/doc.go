// Package cgroups says which version of cgroups the host has, and where the
// cgroups of a process are: with version 1, with version 2, and with both
// mounted (hybrid), where version 2 is below "unified" and usually has no
// controllers. It is the only place that knows.
//
//	paths, err := cgroups.Of(pid)
//	dir := paths.V1("memory")   // empty: not a version 1 controller here
//	dir = paths.V2()            // empty: the process is in the root group
package cgroups
