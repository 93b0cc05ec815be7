package criu

import (
	"fmt"
	"io/fs"
	"reflect"
	"slices"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/creds"
	criu_core "github.com/checkpoint-restore/go-criu/v7/crit/images/criu-core"
	"google.golang.org/protobuf/encoding/protowire"
)

// Rights are what CRIU gives a task at a restore, whatever the container's spec
// says.
type Rights struct {
	// UIDs and GIDs are the real, effective, saved and file system ones; Groups
	// are the supplementary ones.
	UIDs, GIDs [4]uint32
	Groups     []uint32
	// The sets of capabilities, by number.
	Inheritable, Permitted, Effective, Bounding, Ambient uint64
	NoNewPrivs                                           bool
	SecureBits                                           uint32 // capabilities(7)
	Profile                                              string // of the LSM
}

// maxRights bounds the number of different ones in a checkpoint.
const maxRights = 10_000

func (c *Contents) readTasks(images fs.FS) error {
	cores, err := fs.Glob(images, "core-*.img")
	if err != nil {
		return err
	}
	for _, name := range cores {
		e, err := readSingle[criu_core.CoreEntry](images, name, magicCore)
		if err != nil {
			return err
		}
		cr := e.GetThreadCore().GetCreds()
		if cr == nil { // a zombie has none
			continue
		}
		r, err := rightsOf(cr)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if slices.ContainsFunc(c.Rights, func(o Rights) bool { return reflect.DeepEqual(o, r) }) {
			continue
		}
		if len(c.Rights) == maxRights {
			return fmt.Errorf("%w: the tasks have more than %d different rights", ErrCorrupt, maxRights)
		}
		c.Rights = append(c.Rights, r)
	}
	return nil
}

func rightsOf(cr *creds.CredsEntry) (Rights, error) {
	later, err := laterCreds(cr)
	if err != nil {
		return Rights{}, err
	}
	r := Rights{
		UIDs:   [4]uint32{cr.GetUid(), cr.GetEuid(), cr.GetSuid(), cr.GetFsuid()},
		GIDs:   [4]uint32{cr.GetGid(), cr.GetEgid(), cr.GetSgid(), cr.GetFsgid()},
		Groups: slices.Clone(cr.GetGroups()), NoNewPrivs: later.noNewPrivs, Profile: cr.GetLsmProfile(), SecureBits: cr.GetSecbits(),
	}
	for _, set := range []struct {
		to   *uint64
		from []uint32
	}{
		{&r.Inheritable, cr.GetCapInh()},
		{&r.Permitted, cr.GetCapPrm()},
		{&r.Effective, cr.GetCapEff()},
		{&r.Bounding, cr.GetCapBnd()},
		{&r.Ambient, later.ambient},
	} {
		if len(set.from) > 2 { // _LINUX_CAPABILITY_U32S_3
			return Rights{}, fmt.Errorf("%w: a set of %d words of capabilities", ErrCorrupt, len(set.from))
		}
		for i, word := range set.from {
			*set.to |= uint64(word) << (32 * i)
		}
	}
	return r, nil
}

// later are the fields of creds_entry that the protobuf of go-criu v7 does not
// know: no_new_privs, 18, and cap_amb, 19.
type later struct {
	noNewPrivs bool
	ambient    []uint32
}

func laterCreds(cr *creds.CredsEntry) (l later, err error) {
	corrupt := fmt.Errorf("%w: fields of the credentials", ErrCorrupt)
	for b := cr.ProtoReflect().GetUnknown(); len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return l, corrupt
		}
		m := protowire.ConsumeFieldValue(num, typ, b[n:])
		if m < 0 {
			return l, corrupt
		}
		value := b[n : n+m]
		b = b[n+m:]
		switch {
		case num == 18 && typ == protowire.VarintType:
			v, _ := protowire.ConsumeVarint(value)
			l.noNewPrivs = v != 0
		case num == 19 && typ == protowire.VarintType:
			v, _ := protowire.ConsumeVarint(value)
			l.ambient = append(l.ambient, uint32(v))
		case num == 19 && typ == protowire.BytesType: // packed
			packed, _ := protowire.ConsumeBytes(value)
			for len(packed) > 0 {
				v, n := protowire.ConsumeVarint(packed)
				if n < 0 {
					return l, corrupt
				}
				l.ambient, packed = append(l.ambient, uint32(v)), packed[n:]
			}
		}
	}
	return l, nil
}
