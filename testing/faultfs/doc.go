// Package faultfs is a file system whose disk fails when a test says so: a FUSE
// mount of a directory that passes everything on, until operations which change
// something are to fail with EIO, EROFS or another error. The fault can be taken
// back, as that of a real disk can't easily be.
package faultfs
