// Package ociimage builds small OCI images from installed Debian packages and
// imports them into the test environment.
//
// An image holds one layer: the files of its packages without documentation,
// the shared libraries that they are linked to, a static BusyBox as /bin/sh,
// and the directories and files of its recipe. Nothing in it depends on the
// time of the build, so equal inputs give equal digests.
package ociimage
