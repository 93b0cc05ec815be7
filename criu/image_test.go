package criu

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/fown"
	sk_inet "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-inet"
	sk_opts "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-opts"
	tcp_stream "github.com/checkpoint-restore/go-criu/v7/crit/images/tcp-stream"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// image builds an image file.
func image(t testing.TB, magic uint32, entries ...proto.Message) []byte {
	t.Helper()
	b := binary.NativeEndian.AppendUint32(nil, magicImage)
	b = binary.NativeEndian.AppendUint32(b, magic)
	for _, e := range entries {
		m, err := proto.MarshalOptions{AllowPartial: true}.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		b = append(binary.NativeEndian.AppendUint32(b, uint32(len(m))), m...)
	}
	return b
}

func writeImage(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// socketEntry is a TCP socket as CRIU writes it.
func socketEntry(family, state uint32, src, dst netip.AddrPort) *fdinfo.FileEntry {
	words := func(a netip.Addr) []uint32 {
		var out []uint32
		for raw := a.AsSlice(); len(raw) > 0; raw = raw[4:] {
			out = append(out, binary.NativeEndian.Uint32(raw))
		}
		return out
	}
	u := proto.Uint32
	return &fdinfo.FileEntry{Type: fdinfo.FdTypes_INETSK.Enum(), Id: u(1), Isk: &sk_inet.InetSkEntry{
		Id: u(1), Ino: u(0xabc), Family: u(family), Type: u(unix.SOCK_STREAM), Proto: u(unix.IPPROTO_TCP), State: u(state),
		SrcPort: u(uint32(src.Port())), DstPort: u(uint32(dst.Port())), Flags: u(0), Backlog: u(0),
		SrcAddr: words(src.Addr()), DstAddr: words(dst.Addr()),
		Fown: &fown.FownEntry{Uid: u(0), Euid: u(0), Signum: u(0), PidType: u(0), Pid: u(0)},
		Opts: &sk_opts.SkOptsEntry{SoSndbuf: u(0), SoRcvbuf: u(0), SoSndTmoSec: proto.Uint64(0), SoSndTmoUsec: proto.Uint64(0), SoRcvTmoSec: proto.Uint64(0), SoRcvTmoUsec: proto.Uint64(0)},
	}}
}

func streamEntry() *tcp_stream.TcpStreamEntry {
	u := proto.Uint32
	return &tcp_stream.TcpStreamEntry{
		InqLen: u(3), InqSeq: u(1000), OutqLen: u(5), OutqSeq: u(2000), OptMask: u(7), SndWscale: u(8), MssClamp: u(1460), RcvWscale: u(9),
		Timestamp: u(77), UnsqLen: u(2), SndWl1: u(1), SndWnd: u(2), MaxWindow: u(3), RcvWnd: u(4), RcvWup: u(5),
	}
}

func TestTCPSocketFields(t *testing.T) {
	dir := t.TempDir()
	mapped := netip.MustParseAddrPort("[::ffff:10.0.0.1]:6379")
	peer := netip.MustParseAddrPort("[::ffff:10.0.0.2]:5000")
	writeImage(t, dir, "files.img", image(t, magicFiles, socketEntry(unix.AF_INET6, 8, mapped, peer)))
	// The bytes of the queues follow the entry.
	writeImage(t, dir, "tcp-stream-abc.img", append(image(t, magicTCPStream, streamEntry()), "abcdefgh"...))
	got, err := TCPSockets(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := TCPSocket{
		Local: netip.MustParseAddrPort("10.0.0.1:6379"), Remote: netip.MustParseAddrPort("10.0.0.2:5000"), Family: unix.AF_INET6, State: 8,
		InqSeq: 1000, InqLen: 3, OutqSeq: 2000, OutqLen: 5, UnsqLen: 2, OptMask: 7, SndWscale: 8, RcvWscale: 9, MSSClamp: 1460, Timestamp: 77,
		SndWl1: 1, SndWnd: 2, MaxWindow: 3, RcvWnd: 4, RcvWup: 5, HasWindow: true,
	}
	if len(got) != 1 || got[0] != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestTCPSocketsHostile(t *testing.T) {
	v4 := netip.MustParseAddrPort("10.0.0.1:1")
	change := func(fn func(*sk_inet.InetSkEntry)) []byte {
		e := socketEntry(unix.AF_INET, 1, v4, v4)
		fn(e.Isk)
		return image(t, magicFiles, e)
	}
	good := image(t, magicFiles, socketEntry(unix.AF_INET, 1, v4, v4))
	huge := append([]byte(nil), good...)
	binary.NativeEndian.PutUint32(huge[8:], 0xfffffff0)
	for name, b := range map[string][]byte{
		"empty":         {},
		"wrong magic":   image(t, magicStats),
		"torn length":   good[:10],
		"torn entry":    good[:len(good)-1],
		"huge length":   huge,
		"no stream":     good,
		"no address":    change(func(e *sk_inet.InetSkEntry) { e.SrcAddr = nil }),
		"long address":  change(func(e *sk_inet.InetSkEntry) { e.SrcAddr = make([]uint32, 1000) }),
		"huge port":     change(func(e *sk_inet.InetSkEntry) { e.DstPort = proto.Uint32(70000) }),
		"odd family":    change(func(e *sk_inet.InetSkEntry) { e.Family = proto.Uint32(99) }),
		"odd state":     change(func(e *sk_inet.InetSkEntry) { e.State = proto.Uint32(99) }),
		"no socket":     image(t, magicFiles, &fdinfo.FileEntry{Type: fdinfo.FdTypes_INETSK.Enum(), Id: proto.Uint32(1)}),
		"garbage inner": append(append([]byte(nil), good[:8]...), 3, 0, 0, 0, 0xff, 0xff, 0xff),
	} {
		dir := t.TempDir()
		writeImage(t, dir, "files.img", b)
		if _, err := TCPSockets(dir); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
	if _, err := TCPSockets(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without files.img: %v", err)
	}
}

// FuzzImages feeds arbitrary images to everything that reads them.
func FuzzImages(f *testing.F) {
	v6 := netip.MustParseAddrPort("[fd00::1]:80")
	f.Add(image(f, magicFiles, socketEntry(unix.AF_INET6, 1, v6, v6)), image(f, magicTCPStream, streamEntry()))
	f.Add([]byte{}, []byte("short"))
	f.Fuzz(func(t *testing.T, files, stream []byte) {
		dir := fstest.MapFS{}
		for name, b := range map[string][]byte{
			"files.img": files, "tcp-stream-abc.img": stream, "pstree.img": files, "inventory.img": stream,
			"pagemap-1.img": stream, "parent/pagemap-1.img": files, "crsc.json": stream, "stats-dump": stream,
			"core-1.img": stream, "ids-1.img": files, "mountpoints-1.img": files, "seccomp.img": stream,
		} {
			dir[name] = &fstest.MapFile{Data: b, Mode: 0o600}
		}
		for name, err := range map[string]error{
			"validate": validate(dir), "pages": validatePages(dir), "stats": new(DumpStats).load(dir),
		} {
			if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v", name, err)
			}
		}
		sockets, err := tcpSockets(dir)
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
		for _, s := range sockets {
			if !s.Local.IsValid() || s.Local.Addr().Is4In6() {
				t.Errorf("socket %+v", s)
			}
		}
		if _, err := readContents(dir, nil); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		if err := new(filterImage).read(dir); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnfiltered) && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		if _, err := obstacles(dir); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	})
}
