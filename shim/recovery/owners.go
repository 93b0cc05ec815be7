package recovery

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/layer"
)

// newOwners says who the owners of files become in a container with other users
// than the one that a checkpoint was made of; nil if they are the same. The maps
// are alike. Whatever those of the checkpoint say, the result is one of the live
// container's users.
func newOwners(was, is *criu.IDMaps) *layer.Owners {
	if was.Same(is) {
		return nil
	}
	return &layer.Owners{UIDs: ranges(was.UIDs, is.UIDs), GIDs: ranges(was.GIDs, is.GIDs)}
}

func ranges(was, is []specs.LinuxIDMapping) (out []layer.OwnerRange) {
	for i := range was {
		out = append(out, layer.OwnerRange{From: was[i].HostID, To: is[i].HostID, Count: was[i].Size})
	}
	return out
}
