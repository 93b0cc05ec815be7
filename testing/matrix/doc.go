// Package matrix runs the shim with every supported containerd and runc: a
// Redis under load is started, executed in, killed twice and recovered, and the
// clients must have noticed nothing but a pause (package demo judges).
//
//	make matrix             # out/matrix.json; all pairs, four minutes
//
// The versions are those of testing/env/versions: the newest patch of each
// minor release. `make test` runs the oldest pair and the newest.
package matrix
