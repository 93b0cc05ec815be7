// Package storefaults holds tests of what becomes of checkpoints and their
// images when the shim or containerd is killed while they are made, and when
// the disk is full. They have an environment of their own, because they break
// it.
package storefaults
