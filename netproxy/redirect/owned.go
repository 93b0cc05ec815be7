package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tableOwner is NFT_TABLE_F_OWNER (Linux 5.12): the table belongs to the netlink
// socket that made it. Nobody else can change or flush it, and it goes with the
// socket, however the process ends: a dead proxy must not be a black hole.
const tableOwner = 0x2

// dial opens the netlink socket that owns the table.
func (t *table) dial() (err error) {
	// The library can't set flags of a table, so its socket is used directly.
	keep := func(c *netlink.Conn) error {
		t.sock = c
		return nil
	}
	t.conn, err = nftables.New(nftables.AsLasting(), nftables.WithSockOptions(keep))
	if err != nil {
		return fmt.Errorf("%w: nftables: %w", ErrKernel, err)
	}
	return nil
}

// create makes the empty table, in place of one of that name that a version
// without owners may have left.
func (t *table) create() error {
	if err := t.remove(); err != nil {
		return err
	}
	body, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_TABLE_NAME, Data: []byte(t.nft.Name + "\x00")},
		{Type: unix.NFTA_TABLE_FLAGS, Data: binary.BigEndian.AppendUint32(nil, tableOwner)},
	})
	if err != nil {
		return err
	}
	// struct nfgenmsg: family, version, resource.
	batch := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}
	msgs := []netlink.Message{
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: batch},
		{
			Header: netlink.Header{
				Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWTABLE,
				Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Excl,
			},
			Data: append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, body...),
		},
		{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request}, Data: batch},
	}
	if _, err := t.sock.SendMessages(msgs); err != nil {
		return fmt.Errorf("create table %s: %w", t.nft.Name, err)
	}
	if _, err := t.sock.Receive(); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("%w: tables with an owner (Linux 5.12): %w", ErrKernel, err)
		}
		return fmt.Errorf("create table %s: %w", t.nft.Name, err)
	}
	return nil
}

// remove deletes the table with all its chains at once; no table is no error.
func (t *table) remove() error {
	t.conn.DelTable(t.nft)
	err := t.conn.Flush()
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("remove table %s: it belongs to another process that still runs: %w", t.nft.Name, err)
	}
	return fmt.Errorf("remove table %s: %w", t.nft.Name, err)
}

// alone tells whether no redirection but this one is in the namespace.
func (t *table) alone() (bool, error) {
	all, err := t.conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	for _, o := range all {
		if o.Name != t.nft.Name && strings.HasPrefix(o.Name, tableName("")) {
			return false, nil
		}
	}
	return true, nil
}
