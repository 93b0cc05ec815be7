package criu

import (
	"fmt"
	"io/fs"
	"regexp"

	criu_core "github.com/checkpoint-restore/go-criu/v7/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/inventory"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/pstree"
)

// ours are the files that CRIU writes for a container as Dump asks for it. What
// is missing here makes CRIU act on the host's behalf: archives and rules for
// which it starts tar, ip and iptables, AppArmor policies, namespaces.
var ours = regexp.MustCompile(`^(` +
	`(inventory|pstree|files|seccomp|cgroup|tty-info|tty-data|filelocks|remap-fpath|memfd|sk-queues|pipes-data|fifo-data)\.img|` +
	`(core|ids|fdinfo|mm|fs|pagemap|pages|pagemap-shmem|pages-shmem|timens|mountpoints)-[0-9]+\.img|` +
	`(ghost-file|tcp-stream)-[0-9a-f]+\.img|` +
	`stats-(dump|restore)|[a-z-]+\.log|crsc\.json|descriptors\.json)$`)

// checkShape makes sure that images have the shape of those that Dump makes: no
// other files, one tree of tasks in a PID and a mount namespace of its own, and
// in none else.
//
// Errors: ErrCorrupt.
func checkShape(images fs.FS) error {
	list, err := fs.ReadDir(images, ".")
	if err != nil {
		return err
	}
	for _, e := range list {
		if !e.Type().IsRegular() || !ours.MatchString(e.Name()) {
			return fmt.Errorf("%w: %q has no place in a container's checkpoint", ErrCorrupt, e.Name())
		}
	}
	return checkNamespaceIDs(images)
}

// checkNamespaceIDs compares what is said of each task's namespaces. CRIU makes
// those that differ from the inventory's, which are its own.
func checkNamespaceIDs(images fs.FS) error {
	inv, err := readSingle[inventory.InventoryEntry](images, inventoryFile, magicInventory)
	if err != nil {
		return err
	}
	outside := inv.GetRootIds()
	var init *criu_core.TaskKobjIdsEntry
	err = readEntries(images, "pstree.img", magicPstree, func(p *pstree.PstreeEntry) error {
		name := fmt.Sprintf("ids-%d.img", p.GetPid())
		ids, err := readSingle[criu_core.TaskKobjIdsEntry](images, name, magicIDs)
		if gone(err) && init != nil {
			return nil // a zombie
		}
		if err != nil {
			return err
		}
		if init == nil {
			init = ids
			return checkInitIDs(p, ids, outside)
		}
		if p.GetPpid() == 0 || namespaceIDs(ids) != namespaceIDs(init) {
			return fmt.Errorf("%w: task %d is in other namespaces than the container's init", ErrCorrupt, p.GetPid())
		}
		return nil
	})
	if err == nil && init == nil {
		err = fmt.Errorf("%w: pstree.img has no tasks", ErrCorrupt)
	}
	return err
}

// checkInitIDs: the first task is the init of a PID namespace of its own, with a
// mount namespace of its own, and everything else is where CRIU is; but for the
// time namespace, which CRIU makes at each restore and which has its offsets only.
func checkInitIDs(p *pstree.PstreeEntry, ids, outside *criu_core.TaskKobjIdsEntry) error {
	theirs, host := namespaceIDs(ids), namespaceIDs(outside)
	const pid, mount, clock = 0, 1, 7
	own := theirs[pid] != host[pid] && theirs[mount] != host[mount]
	theirs[pid], theirs[mount], theirs[clock] = host[pid], host[mount], host[clock]
	if p.GetPid() != 1 || p.GetPpid() != 0 || outside == nil || !own || theirs != host {
		return fmt.Errorf("%w: task %d is not the init of a container: %v in %v", ErrCorrupt, p.GetPid(), ids, outside)
	}
	return nil
}

func namespaceIDs(e *criu_core.TaskKobjIdsEntry) [8]uint32 {
	return [8]uint32{
		e.GetPidNsId(), e.GetMntNsId(), e.GetNetNsId(), e.GetIpcNsId(), e.GetUtsNsId(), e.GetUserNsId(), e.GetCgroupNsId(), e.GetTimeNsId(),
	}
}
