package oci

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Names in the standard layer.
const (
	dirCheckpoint = "checkpoint/"
	dirOurs       = "crsc/"
	nameConfig    = "config.dump"
	nameSpec      = "spec.dump"
	nameRootfs    = "rootfs-diff.tar"
)

// stateTar writes the standard layer of a checkpoint.
type stateTar struct {
	ctx  context.Context
	tw   *tar.Writer
	at   time.Time
	buf  []byte
	page func(page []byte) // called with each page of memory; nil: there are none
}

func (s *stateTar) header(name string, size int64) error {
	h := &tar.Header{Name: name, Size: size, Mode: 0o600, ModTime: s.at.Truncate(time.Second), Typeflag: tar.TypeReg}
	if name == dirCheckpoint || name == dirOurs {
		h.Mode, h.Typeflag = 0o700, tar.TypeDir
	}
	return s.tw.WriteHeader(h)
}

func (s *stateTar) bytes(name string, b []byte) error {
	if err := s.header(name, int64(len(b))); err != nil {
		return err
	}
	_, err := s.tw.Write(b)
	return err
}

func (s *stateTar) file(prefix string, it item) error {
	return s.copy(prefix, it, func(f *os.File) error { return copyExactly(s.ctx, s.tw, f, it.size, s.buf) })
}

// pages writes a file of pages, and shows each page to s.page.
func (s *stateTar) pages(prefix string, it item) error {
	return s.copy(prefix, it, func(f *os.File) error {
		return eachPage(s.ctx, f, it.size, func(p []byte) error {
			s.page(p)
			_, err := s.tw.Write(p)
			return err
		})
	})
}

func (s *stateTar) copy(prefix string, it item, fn func(*os.File) error) error {
	f, err := it.open()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.header(prefix+it.name, it.size); err != nil {
		return err
	}
	if err := fn(f); err != nil {
		return fmt.Errorf("%s: %w", it.path, err)
	}
	return nil
}

// rootfs writes the writable layer as a tar.
func (s *stateTar) rootfs(from *Rootfs) error {
	if from == nil {
		return nil
	}
	size, err := from.Size()
	if err != nil {
		return fmt.Errorf("%s: %w", nameRootfs, err)
	}
	if err := s.header(nameRootfs, size); err != nil {
		return err
	}
	err = from.Write(s.tw)
	if err == nil {
		err = s.tw.Flush() // fails if the size was another
	}
	if err != nil {
		return fmt.Errorf("%s: %w", nameRootfs, err)
	}
	return nil
}

// dumps are the two descriptions that every checkpoint archive has.
type dumps struct{ config, spec []byte }

// write writes the layer. With page it is a full one: memory and root file
// system are in it, and page is called with each page in order.
func (s *stateTar) write(inv *inventory, d dumps, rootfs *Rootfs) error {
	err := errors.Join(s.bytes(nameConfig, d.config), s.bytes(nameSpec, d.spec))
	for _, it := range inv.top {
		err = errors.Join(err, s.file("", it))
	}
	err = errors.Join(err, s.header(dirCheckpoint, 0))
	for _, it := range inv.state {
		if err == nil {
			err = s.file(dirCheckpoint, it)
		}
	}
	if s.page != nil {
		for _, it := range inv.pages {
			if err == nil {
				err = s.pages(dirCheckpoint, it)
			}
		}
		if err == nil {
			err = s.rootfs(rootfs)
		}
	}
	if err == nil {
		err = s.header(dirOurs, 0)
	}
	for _, it := range inv.ours {
		if err == nil {
			err = s.file(dirOurs, it)
		}
	}
	if err != nil {
		return err
	}
	return s.tw.Close()
}

func newStateTar(ctx context.Context, w io.Writer, at time.Time) *stateTar {
	return &stateTar{ctx: ctx, tw: tar.NewWriter(w), at: at, buf: make([]byte, 256<<10)}
}
