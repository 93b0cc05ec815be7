package layer

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Owners say who the owners of files become in a tree of which the users are
// others than those of the snapshot. nil: they stay who they were.
type Owners struct{ UIDs, GIDs []OwnerRange }

// OwnerRange makes Count IDs from From on those from To on.
type OwnerRange struct{ From, To, Count uint32 }

// move changes the owners that e names, also in extended attributes.
//
// Errors: ErrOwner.
func (o *Owners) move(e *entry) (err error) {
	if o == nil {
		return nil
	}
	if e.uid, err = moved(o.UIDs, "user", e.uid); err != nil {
		return err
	}
	if e.gid, err = moved(o.GIDs, "group", e.gid); err != nil {
		return err
	}
	for i := range e.xattrs {
		x := &e.xattrs[i]
		switch string(x.name) {
		case "security.capability":
			x.value, err = o.moveCapability(x.value)
		case "system.posix_acl_access", "system.posix_acl_default":
			x.value, err = o.moveACL(x.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// moveRoot leaves the tree's root to whom it belongs, if that was none of the users.
func (o *Owners) moveRoot(e *entry, st *unix.Statx_t) error {
	_, err := moved(o.UIDs, "user", e.uid)
	_, gerr := moved(o.GIDs, "group", e.gid)
	if err != nil || gerr != nil {
		e.uid, e.gid = st.Uid, st.Gid
		return nil
	}
	return o.move(e)
}

func moved(ranges []OwnerRange, what string, id uint32) (uint32, error) {
	for _, r := range ranges {
		if id >= r.From && id-r.From < r.Count {
			return r.To + (id - r.From), nil
		}
	}
	return 0, fmt.Errorf("%w: %s %d of the host", ErrOwner, what, id)
}

// moveCapability changes the root user that file capabilities are for: struct
// vfs_ns_cap_data of the kernel, of which only revision 3 names one.
func (o *Owners) moveCapability(b []byte) ([]byte, error) {
	const revisionMask, revision3, size, rootID = 0xff000000, 0x03000000, 24, 20
	le := binary.LittleEndian
	if len(b) != size || le.Uint32(b)&revisionMask != revision3 {
		return b, nil
	}
	root, err := moved(o.UIDs, "file capabilities of user", le.Uint32(b[rootID:]))
	if err != nil {
		return nil, err
	}
	return le.AppendUint32(append([]byte(nil), b[:rootID]...), root), nil
}

// moveACL changes the users and groups of an access control list: a header of
// four bytes and entries of tag, permissions and ID (linux/posix_acl_xattr.h).
func (o *Owners) moveACL(b []byte) ([]byte, error) {
	const header, size, id, user, group = 4, 8, 4, 0x02, 0x08
	le := binary.LittleEndian
	out := append([]byte(nil), b...)
	for at := header; at+size <= len(out); at += size {
		var err error
		n := le.Uint32(out[at+id:])
		switch le.Uint16(out[at:]) {
		case user:
			n, err = moved(o.UIDs, "access control list for user", n)
		case group:
			n, err = moved(o.GIDs, "access control list for group", n)
		}
		if err != nil {
			return nil, err
		}
		le.PutUint32(out[at+id:], n)
	}
	return out, nil
}
