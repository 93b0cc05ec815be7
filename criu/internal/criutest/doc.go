// Package criutest runs real containers with the real runc for the tests of
// package criu: a root file system from Debian's packages, a bundle with the
// specification that ctr would write, and a network namespace, all of which go
// away with the test.
package criutest
