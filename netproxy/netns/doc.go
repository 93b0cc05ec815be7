// Package netns runs functions inside another network namespace and tells
// which namespace a descriptor stands for.
//
// The shim lives in the host's namespace and holds a descriptor of the
// container's. A socket belongs for ever to the namespace of the thread that
// created it, so only the creation of a socket (raw, netlink or inet) has to
// happen inside Do; everything later works from any thread.
package netns
