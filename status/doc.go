// Package status is what an operator may know of protected containers: one
// file, status.json, in each container's state directory
// (<state_dir>/<namespace>/<container id>), replaced atomically by the shim
// whenever something changes, and read by `crsc` and by anything else that
// reads JSON.
//
// Fields are only ever added. Times are RFC 3339; durations are in milliseconds
// with three digits and end in _ms.
package status
