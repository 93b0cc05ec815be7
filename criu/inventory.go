package criu

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	criu_core "github.com/checkpoint-restore/go-criu/v7/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/inventory"
	"google.golang.org/protobuf/proto"
)

// inventoryFile is written last, and says where CRIU was.
const inventoryFile = "inventory.img"

// leaveUserNamespace takes the user namespace of the tasks out of images, as if
// CRIU had been in it when it dumped them. It can't be: whoever reads
// /proc/PID/map_files needs rights in the host's user namespace. And it must not
// stay: CRIU would restore the tasks in a new one, without rights over the
// network namespace, and so without connections.
//
// CRIU makes those namespaces at a restore in which the inventory's differ from
// the tasks' (get_clone_mask of its criu/pstree.c). What else it has written is
// in the numbers of the user namespace already.
func leaveUserNamespace(images string) error {
	dir := os.DirFS(images)
	inv, err := readSingle[inventory.InventoryEntry](dir, inventoryFile, magicInventory)
	if err != nil {
		return err
	}
	ids, err := readSingle[criu_core.TaskKobjIdsEntry](dir, "ids-1.img", magicIDs)
	if err != nil {
		return err
	}
	if inv.GetRootIds() == nil || ids.UserNsId == nil {
		return fmt.Errorf("%w: the inventory does not say which namespaces CRIU was in", ErrCorrupt)
	}
	inv.RootIds.UserNsId = ids.UserNsId
	entry, err := proto.Marshal(inv)
	if err != nil {
		return err
	}
	b := binary.NativeEndian.AppendUint32(nil, magicInventory)
	b = binary.NativeEndian.AppendUint32(b, uint32(len(entry)))
	if err := os.WriteFile(filepath.Join(images, inventoryFile), append(b, entry...), 0o600); err != nil {
		return err
	}
	return os.Remove(filepath.Join(images, fmt.Sprintf("userns-%d.img", ids.GetUserNsId())))
}
