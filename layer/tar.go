package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// What overlayfs keeps for itself, as attributes of the files.
	overlayPrefix = "trusted.overlay."
	opaqueXattr   = overlayPrefix + "opaque"
	// Marks of deletions in OCI layers (image-spec, layer.md).
	whiteoutPrefix = ".wh."
	opaqueWhiteout = ".wh..wh..opq"
	paxXattr       = "SCHILY.xattr."
)

// WriteTar writes a snapshot of an overlay's upper directory as an OCI layer,
// uncompressed: whiteouts and opaque directories become files with the names
// that the image specification gives them. Sockets and mount points, which a
// layer can't hold, are left out. The same snapshot gives the same bytes.
func WriteTar(ctx context.Context, dir string, w io.Writer) error {
	s, err := openSnapshot(dir)
	if err != nil {
		return fmt.Errorf("tar of %s: %w", dir, err)
	}
	defer s.close()
	t := &tarWriter{ctx: ctx, snap: s, tw: tar.NewWriter(w), buf: make([]byte, compareChunk)}
	if err := t.entries(); err != nil {
		return fmt.Errorf("tar of %s: %w", dir, err)
	}
	return t.tw.Close()
}

type tarWriter struct {
	ctx   context.Context
	snap  *snapshot
	tw    *tar.Writer
	buf   []byte
	paths []string // of the entries so far, for hard links
}

func (t *tarWriter) entries() error {
	var above []string // the directories above the entry, by depth
	var e entry
	for rest := t.snap.m.body; len(rest) > 0; {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		r, err := nextRecord(rest)
		if err == nil {
			err = r.decode(&e)
		}
		if err != nil {
			return err
		}
		rest = rest[len(r):]
		name := ""
		if e.depth > 0 {
			name = path.Join(above[e.depth-1], string(e.name))
		}
		above = append(above[:e.depth], name)
		t.paths = append(t.paths, name)
		if err := t.entry(name, &e); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (t *tarWriter) entry(name string, e *entry) error {
	if e.whiteout() && e.kind == kindChar {
		dir, base := path.Split(name)
		return t.tw.WriteHeader(&tar.Header{Name: dir + whiteoutPrefix + base, Typeflag: tar.TypeReg})
	}
	types := map[kind]byte{
		kindDir: tar.TypeDir, kindRegular: tar.TypeReg, kindSymlink: tar.TypeSymlink, kindFifo: tar.TypeFifo,
		kindChar: tar.TypeChar, kindBlock: tar.TypeBlock, kindLink: tar.TypeLink,
	}
	typ, ok := types[e.kind]
	if !ok || name == "" {
		return nil
	}
	h := &tar.Header{
		Name: name, Typeflag: typ, Mode: int64(e.mode & 07777), Uid: int(e.uid), Gid: int(e.gid), Format: tar.FormatPAX,
		ModTime: time.Unix(e.mtime.sec, int64(e.mtime.nsec)), Devmajor: int64(e.major), Devminor: int64(e.minor), Linkname: string(e.target),
	}
	switch e.kind {
	case kindDir:
		h.Name += "/"
	case kindRegular:
		h.Size = e.size
	case kindLink:
		h.Linkname = t.paths[e.link]
	}
	opaque := false
	for _, x := range e.xattrs {
		if string(x.name) == opaqueXattr {
			opaque = string(x.value) == "y"
		}
		if strings.HasPrefix(string(x.name), overlayPrefix) || e.kind == kindLink {
			continue
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+string(x.name)] = string(x.value)
	}
	if err := t.tw.WriteHeader(h); err != nil {
		return err
	}
	if opaque {
		return t.tw.WriteHeader(&tar.Header{Name: h.Name + opaqueWhiteout, Typeflag: tar.TypeReg})
	}
	if e.kind != kindRegular {
		return nil
	}
	return t.contents(e)
}

// contents writes the bytes of a file; between its extents there are zeros.
func (t *tarWriter) contents(e *entry) error {
	at := int64(0)
	for _, x := range e.extents {
		if err := t.zeros(x.off - at); err != nil {
			return err
		}
		for done := int64(0); done < x.length; {
			if err := t.ctx.Err(); err != nil {
				return err
			}
			b := t.buf[:min(x.length-done, int64(len(t.buf)))]
			if err := readFull(t.snap.packs[x.pack], b, x.packOff+done); err != nil {
				return err
			}
			if _, err := t.tw.Write(b); err != nil {
				return err
			}
			done += int64(len(b))
		}
		at = x.off + x.length
	}
	return t.zeros(e.size - at)
}

func (t *tarWriter) zeros(n int64) error {
	if n <= 0 {
		return nil
	}
	clear(t.buf)
	for n > 0 {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		b := t.buf[:min(n, int64(len(t.buf)))]
		if _, err := t.tw.Write(b); err != nil {
			return err
		}
		n -= int64(len(b))
	}
	return nil
}

// Link makes a copy of a snapshot in the new directory dst that shares its
// files. It stays as it is when the snapshot is merged, used or removed.
func Link(dir, dst string) error {
	s, err := openSnapshot(dir)
	if err != nil {
		return fmt.Errorf("link %s: %w", dir, err)
	}
	defer s.close()
	if err := os.Mkdir(dst, 0o700); err != nil {
		return fmt.Errorf("link %s: %w", dir, err)
	}
	to, err := openRoot(dst)
	if err != nil {
		return fmt.Errorf("link %s: %w", dir, err)
	}
	defer closeFD(to)
	if err := s.linkPacks(to); err != nil {
		return fmt.Errorf("link %s: %w", dir, err)
	}
	// The manifest that was read, not one that Sync has put in its place since.
	if err := replaceFileAt(to, manifestName, s.m.encode()); err != nil {
		return fmt.Errorf("link %s: %w", dir, err)
	}
	if unix.Faccessat(s.dirfd, syncedName, unix.F_OK, 0) == nil {
		return replaceFileAt(to, syncedName, nil)
	}
	return nil
}
