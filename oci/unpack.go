package oci

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// readState hands the files of a standard layer to use, in order. Names are
// those of the layer and not checked. A layer with anything but plain files and
// the two directories is damaged.
func readState(r io.Reader, use func(name string, size int64, r io.Reader) error) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			// Padding of zeros may follow the end of a tar.
			return onlyZeros(r)
		}
		if err != nil {
			return asDamage("standard layer", err)
		}
		if h.Typeflag == tar.TypeDir && (h.Name == dirCheckpoint || h.Name == dirOurs) {
			continue
		}
		if h.Typeflag != tar.TypeReg || h.Size < 0 || !plainRecords(h.PAXRecords) {
			return damaged("standard layer", "%.100q is not a plain file (type %q)", h.Name, h.Typeflag)
		}
		if err := use(h.Name, h.Size, tr); err != nil {
			return asDamage(fmt.Sprintf("standard layer: %.100q", h.Name), err)
		}
	}
}

// asDamage makes an error of the decoders an ErrCorrupt. Errors of the machine
// and our own stay what they are.
func asDamage(what string, err error) error {
	var machine *fs.PathError
	switch {
	case errors.Is(err, tar.ErrHeader), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, tar.ErrFieldTooLong):
		return damaged(what, "%v", err)
	case errors.As(err, &machine), errors.Is(err, ErrTooLarge), errors.Is(err, ErrCorrupt), errors.Is(err, ErrUnsupportedVersion):
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}

// plainRecords allows only what a file of more than 8 GiB needs: the others
// make sparse files, links and attributes.
func plainRecords(records map[string]string) bool {
	for k := range records {
		if k != "size" && k != "path" && k != "mtime" {
			return false
		}
	}
	return true
}

func onlyZeros(r io.Reader) error {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		if strings.Trim(string(buf[:n]), "\x00") != "" {
			return damaged("standard layer", "something follows its end")
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// destination returns the place in a checkpoint directory of a file of the
// standard layer; ok is false for a name that does not belong there.
func destination(name string) (dest string, ok bool) {
	rules := nameRules()
	if slices.Contains(standardTop(), name) {
		return "images/" + name, true
	}
	if image, found := strings.CutPrefix(name, dirCheckpoint); found {
		ok = rules.image.MatchString(image) && !slices.Contains(standardTop(), image) && !slices.Contains(transient(), image)
		return "images/" + image, ok
	}
	ours, found := strings.CutPrefix(name, dirOurs)
	if !found {
		return "", false
	}
	if ours == "cut.json" {
		return ours, true
	}
	tree, file := path.Split(ours)
	ok = rules.tree.MatchString(strings.TrimSuffix(tree, "/")) && (file == "manifest" || rules.pack.MatchString(file))
	return ours, ok
}

// source unpacks the pages of an earlier layer into one file.
func (f *fetch) source(desc ocispec.Descriptor, number int) error {
	name := strconv.Itoa(number)
	return f.unzip(desc, func(r io.Reader) error {
		if strings.TrimSuffix(desc.MediaType, suffixEncrypted) == mediaTypePages {
			b := bufio.NewReaderSize(r, 64<<10)
			d, err := readDelta(b, uint64(f.bytes)/pageSize)
			if err != nil {
				return err
			}
			return f.scratchFile(name, b, int64(d.own)*pageSize)
		}
		out, err := f.scratch.Create(name)
		if err != nil {
			return err
		}
		rules := nameRules()
		err = readState(r, func(name string, size int64, r io.Reader) error {
			image, ok := strings.CutPrefix(name, dirCheckpoint)
			if !ok || !rules.pages.MatchString(image) || size%pageSize != 0 {
				return nil
			}
			_, err := io.Copy(out, r)
			return err
		})
		return errors.Join(err, out.Close())
	})
}

func (f *fetch) scratchFile(name string, r io.Reader, size int64) error {
	out, err := f.scratch.Create(name)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(r, size))
	if err = errors.Join(err, out.Close()); err == nil && n != size {
		err = damaged("pages", "%d bytes instead of %d", n, size)
	}
	if err != nil {
		return err
	}
	// Through the buffer, so that nothing in it goes unnoticed.
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		return damaged("pages", "something follows their end: %v", err)
	}
	return nil
}

// assemble makes one file of pages out of those that were unpacked.
func (f *fetch) assemble(d *deltaFile) (err error) {
	if int64(d.pages()) > f.bytes/pageSize {
		return fmt.Errorf("%w: %s", ErrTooLarge, d.name)
	}
	f.bytes -= int64(d.pages()) * pageSize
	if f.files--; f.files < 0 {
		return fmt.Errorf("%w: too many files", ErrTooLarge)
	}
	out, err := f.root.OpenFile("images/"+d.name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return damaged("image", "%s comes twice", d.name)
	}
	if err != nil {
		return err
	}
	open := map[uint32]*os.File{}
	defer func() {
		for _, in := range open {
			err = errors.Join(err, in.Close())
		}
		err = errors.Join(err, out.Close())
	}()
	w, buf := bufio.NewWriterSize(out, 256<<10), make([]byte, 256<<10)
	for _, r := range d.runs {
		in := open[r.source]
		if in == nil {
			name := "own"
			if r.source != ownPages {
				name = strconv.FormatUint(uint64(r.source), 10)
			}
			if in, err = f.scratch.Open(name); err != nil {
				return err
			}
			open[r.source] = in
		}
		n := int64(r.count) * pageSize
		if err := copyExactly(f.ctx, w, io.NewSectionReader(in, int64(r.first)*pageSize, n), n, buf); err != nil {
			return asDamage("pages: "+d.name, err)
		}
	}
	return w.Flush()
}
