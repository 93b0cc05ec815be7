// Package task is containerd's task service, version 3, over ttrpc. It
// translates requests into calls of package lifecycle, and errors into gRPC
// codes, in one place ([Service.do]). It holds no state.
package task
