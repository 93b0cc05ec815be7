package criu

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"google.golang.org/protobuf/proto"
)

// ForgetSizes removes the sizes of open files below the given absolute
// directories of the container from the images. CRIU compares them at a restore
// and refuses a file that has grown since, which is what files on volumes do
// whose owner lets them be newer than the memory.
func ForgetSizes(images string, below []string) error {
	if len(below) == 0 {
		return nil
	}
	path := filepath.Join(images, "files.img")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	off, err := header(b, magicFiles)
	if err != nil {
		return fmt.Errorf("files.img: %w", err)
	}
	out := append([]byte(nil), b[:off]...)
	changed := false
	err = parseRaw(b, magicFiles, func(entry []byte) error {
		var e fdinfo.FileEntry
		if err := proto.Unmarshal(entry, &e); err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if reg := e.GetReg(); reg != nil && reg.Size != nil && isBelow(reg.GetName(), below) {
			reg.Size, changed = nil, true
			var err error
			if entry, err = proto.Marshal(&e); err != nil {
				return err
			}
		}
		out = binary.NativeEndian.AppendUint32(out, uint32(len(entry)))
		out = append(out, entry...)
		return nil
	})
	if err != nil || !changed {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, out, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func isBelow(name string, dirs []string) bool {
	name = filepath.Join("/", name)
	for _, d := range dirs {
		if name == d || strings.HasPrefix(name, strings.TrimSuffix(d, "/")+"/") {
			return true
		}
	}
	return false
}
