package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
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
	// What overlayfs has for one that is mounted inside: attributes of files.
	escapedPrefix = overlayPrefix + "overlay."
	// maxTarXattrs is less than archive/tar takes for one entry, in bytes.
	maxTarXattrs = 1 << 19
)

// elsewhere are attributes of entries whose contents overlayfs takes from another
// path of the layers below (mount options redirect_dir and metacopy).
var elsewhere = []string{overlayPrefix + "redirect", overlayPrefix + "metacopy"}

// WriteTar writes a snapshot of an overlay's upper directory as an OCI layer,
// uncompressed: whiteouts and opaque directories become files with the names
// that the image specification gives them, files with large holes become sparse
// ones. What a layer can't hold is left out: sockets, mount points, paths that no
// tool could open (PATH_MAX), names that begin like a whiteout's, files of more
// holes than a tar can list if these are more than maxZeros, attributes with an
// equals sign in their names or of more than half a megabyte. The same snapshot
// gives the same bytes.
//
// Errors: ErrNoLayer, and those of reading a snapshot.
func WriteTar(ctx context.Context, dir string, w io.Writer) error {
	return writeTar(dir, &tarWriter{ctx: ctx, w: w, buf: make([]byte, compareChunk)})
}

// TarSize returns how many bytes WriteTar writes of a snapshot. It does not read
// what is in the files.
//
// Errors: those of WriteTar.
func TarSize(ctx context.Context, dir string) (int64, error) {
	n := &tarCounter{}
	err := writeTar(dir, &tarWriter{ctx: ctx, w: n, leap: n})
	return n.bytes, err
}

func writeTar(dir string, t *tarWriter) error {
	s, err := openSnapshot(dir)
	if err != nil {
		return fmt.Errorf("tar of %s: %w", dir, err)
	}
	defer s.close()
	t.snap, t.tw = s, tar.NewWriter(t.w)
	if err := t.entries(); err != nil {
		return fmt.Errorf("tar of %s: %w", dir, err)
	}
	return t.tw.Close()
}

// tarCounter counts what is written to it.
type tarCounter struct{ bytes int64 }

func (c *tarCounter) Write(p []byte) (int, error) {
	c.bytes += int64(len(p))
	return len(p), nil
}

type tarWriter struct {
	ctx   context.Context
	snap  *snapshot
	w     io.Writer   // where tw writes
	leap  *tarCounter // w, if contents are only counted; otherwise nil
	tw    *tar.Writer
	buf   []byte
	paths []string // of the entries so far, for hard links; empty: left out
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
		if !t.fits(name, &e) {
			t.paths = append(t.paths, "")
			continue
		}
		t.paths = append(t.paths, name)
		if err := t.entry(name, &e); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// fits reports whether a layer can hold an entry.
func (t *tarWriter) fits(name string, e *entry) bool {
	switch {
	case name == "", len(name) >= unix.PathMax, e.kind == kindSocket, e.kind == kindMount:
		return false
	case e.kind == kindLink && t.paths[e.link] == "":
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, whiteoutPrefix) {
			return false
		}
	}
	return e.kind != kindRegular || !islandsOf(e).excessive(e)
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
	h := &tar.Header{
		Name: name, Typeflag: types[e.kind], Mode: int64(e.mode & 07777), Uid: int(e.uid), Gid: int(e.gid), Format: tar.FormatPAX,
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
	opaque, err := tarXattrs(h, e)
	if err != nil {
		return err
	}
	if e.kind == kindRegular {
		return t.regular(h, e)
	}
	if err := t.tw.WriteHeader(h); err != nil {
		return err
	}
	if opaque {
		return t.tw.WriteHeader(&tar.Header{Name: h.Name + opaqueWhiteout, Typeflag: tar.TypeReg})
	}
	return nil
}

func (t *tarWriter) regular(h *tar.Header, e *entry) error {
	if m := islandsOf(e); e.size-m.stored >= minSparse {
		return t.sparse(h, e, m)
	}
	if err := t.tw.WriteHeader(h); err != nil {
		return err
	}
	if t.leap != nil {
		t.skip(e.size)
		return nil
	}
	return t.contents(t.tw, e, noHole)
}

// skip counts contents that are not written.
func (t *tarWriter) skip(n int64) {
	t.leap.bytes += n + padding(n)
	t.tw = tar.NewWriter(t.w) // the one before would wait for them
}

// tarXattrs puts the attributes of an entry into its header.
func tarXattrs(h *tar.Header, e *entry) (opaque bool, err error) {
	size := 0
	for _, x := range e.xattrs {
		name := string(x.name)
		if slices.Contains(elsewhere, name) {
			return false, fmt.Errorf("%w (%s)", ErrNoLayer, name)
		}
		if name == opaqueXattr {
			opaque = string(x.value) == "y"
		}
		ours := strings.HasPrefix(name, overlayPrefix) && !strings.HasPrefix(name, escapedPrefix)
		if ours || e.kind == kindLink || strings.Contains(name, "=") {
			continue
		}
		if size += len(name) + len(x.value); size > maxTarXattrs {
			continue
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+name] = string(x.value)
	}
	return opaque, nil
}

// contents writes the bytes of a file, but for holes of at least hole bytes.
func (t *tarWriter) contents(w io.Writer, e *entry, hole int64) error {
	at := int64(0)
	zeros := func(n int64) error {
		if n >= hole {
			return nil
		}
		return t.zeros(w, n)
	}
	for _, x := range e.extents {
		if err := zeros(x.off - at); err != nil {
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
			if _, err := w.Write(b); err != nil {
				return err
			}
			done += int64(len(b))
		}
		at = x.off + x.length
	}
	return zeros(e.size - at)
}

func (t *tarWriter) zeros(w io.Writer, n int64) error {
	if n <= 0 {
		return nil
	}
	clear(t.buf[:min(n, int64(len(t.buf)))])
	for n > 0 {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		b := t.buf[:min(n, int64(len(t.buf)))]
		if _, err := w.Write(b); err != nil {
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
