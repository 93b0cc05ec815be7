package criu

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// The environment of a stand-in: the real CRIU, and at which pre-dump, if at any,
// it fails.
const (
	standInFor  = "CRSC_TEST_REAL_CRIU"
	standInFail = "CRSC_TEST_FAIL_ROUND"
)

// TestMain lets the test program be a CRIU on a kernel that tracks what is
// written to, which real ones often do not: it has the real CRIU dump everything,
// and takes out of the images what the images before have as well.
func TestMain(m *testing.M) {
	real := os.Getenv(standInFor)
	if real == "" || len(os.Args) < 3 || os.Args[1] != "swrk" {
		os.Exit(m.Run())
	}
	if err := standIn(real); err != nil {
		fmt.Fprintln(os.Stderr, "stand-in:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func standIn(real string) error {
	f := os.NewFile(3, "socket")
	cred, err := unix.GetsockoptUcred(3, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return err
	}
	fc, err := net.FileConn(f)
	if err != nil {
		return err
	}
	up := &swrk{conn: fc.(*net.UnixConn)}
	f.Close()
	req, err := receiveRequest(up.conn)
	if err != nil {
		return err
	}
	asked := proto.Clone(req).(*rpc.CriuReq)
	o := req.GetOpts()
	images := fmt.Sprintf("/proc/%d/fd/%d", cred.Pid, o.GetImagesDirFd())
	dir, err := os.Open(images)
	if err != nil {
		return err
	}
	if images, err = os.Readlink(images); err != nil {
		return err
	}
	o.ImagesDirFd, o.TrackMem, o.ParentImg = proto.Int32(int32(dir.Fd())), nil, nil
	req.Type = rpc.CriuReqType_DUMP.Enum()
	child, err := spawn{path: real, start: startChild}.run()
	if err != nil {
		return err
	}
	resp, err := relay(up, child, req)
	if err != nil {
		return err
	}
	pre := asked.GetType() == rpc.CriuReqType_SINGLE_PRE_DUMP
	if fail := os.Getenv(standInFail); pre && fail != "" && strings.HasSuffix(images, roundDir(int(fail[0]-'0'))) {
		resp.Success = proto.Bool(false)
	}
	if parent := asked.GetOpts().GetParentImg(); parent != "" {
		if err := subtract(images, filepath.Join(images, parent)); err != nil {
			return err
		}
		if err := os.Symlink(parent, filepath.Join(images, parentLink)); err != nil {
			return err
		}
	}
	if pre {
		if err := memoryOnly(images); err != nil {
			return err
		}
	}
	resp.Type = asked.Type
	b, err := proto.Marshal(resp)
	if err != nil {
		return err
	}
	_, err = up.conn.Write(b)
	return err
}

func receiveRequest(c *net.UnixConn) (*rpc.CriuReq, error) {
	buf := make([]byte, maxMessage)
	n, err := c.Read(buf)
	if err != nil {
		return nil, err
	}
	req := new(rpc.CriuReq)
	return req, proto.Unmarshal(buf[:n], req)
}

// relay serves the real CRIU's questions, and returns its answer.
func relay(up, real *swrk, req *rpc.CriuReq) (*rpc.CriuResp, error) {
	for {
		if err := real.send(req); err != nil {
			return nil, err
		}
		resp, files, err := real.receive()
		closeAll(files)
		if err != nil || resp.GetType() != rpc.CriuReqType_NOTIFY {
			return resp, err
		}
		b, err := proto.Marshal(resp)
		if err != nil {
			return nil, err
		}
		if _, err := up.conn.Write(b); err != nil {
			return nil, err
		}
		if req, err = receiveRequest(up.conn); err != nil {
			return nil, err
		}
	}
}

// memoryOnly leaves what a pre-dump leaves.
func memoryOnly(dir string) error {
	list, err := os.ReadDir(dir)
	for _, e := range list {
		if n := e.Name(); !strings.HasPrefix(n, "page") && n != "stats-dump" && n != dumpLog && n != "inventory.img" && n != parentLink {
			err = errors.Join(err, os.Remove(filepath.Join(dir, n)))
		}
	}
	return err
}

// subtract takes the pages out of images that their parent has as well.
func subtract(images, parent string) error {
	list, err := filepath.Glob(filepath.Join(images, "pagemap-*.img"))
	if err != nil {
		return err
	}
	for _, path := range list {
		dirs := []string{parent}
		for {
			link, err := os.Readlink(filepath.Join(dirs[len(dirs)-1], parentLink))
			if err != nil {
				break
			}
			dirs = append(dirs, filepath.Join(dirs[len(dirs)-1], link))
		}
		if err := subtractOne(images, filepath.Base(path), dirs); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func subtractOne(images, name string, parents []string) error {
	m, err := openPageMap(images, name)
	if err != nil || m.file == nil {
		return err
	}
	defer m.close()
	before, err := contents(parents, name)
	if err != nil {
		return err
	}
	var runs []run
	var pages bytes.Buffer
	f := &flattening{}
	for _, r := range m.runs {
		for i := range r.pages {
			page, at := make([]byte, pageBytes()), r.vaddr+i*pageBytes()
			one := run{vaddr: at, pages: 1, flags: r.flags}
			if r.flags&pagePresent != 0 {
				if _, err := m.file.ReadAt(page, r.offset+int64(i*pageBytes())); err != nil {
					return err
				}
				if old, ok := before[at]; ok && bytes.Equal(old, page) {
					one.flags = r.flags&^pagePresent | pageInParent
				} else {
					pages.Write(page)
				}
			}
			f.add(one)
		}
	}
	runs = f.runs
	var b bytes.Buffer
	if err := writePageMap(&b, m.head, runs); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(images, name), b.Bytes(), 0o600),
		os.WriteFile(filepath.Join(images, pagesName(m.id)), pages.Bytes(), 0o600))
}

// contents are the pages of a page map and its parents, by address.
func contents(dirs []string, name string) (map[uint64][]byte, error) {
	out := map[uint64][]byte{}
	for _, dir := range dirs { // newest first
		m, err := openPageMap(dir, name)
		if errors.Is(err, os.ErrNotExist) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		defer m.close()
		for _, r := range m.runs {
			for i := range r.pages {
				at := r.vaddr + i*pageBytes()
				if _, ok := out[at]; ok || r.flags&pagePresent == 0 {
					continue
				}
				out[at] = make([]byte, pageBytes())
				if _, err := m.file.ReadAt(out[at], r.offset+int64(i*pageBytes())); err != nil {
					return nil, err
				}
			}
		}
	}
	return out, nil
}
