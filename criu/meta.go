package criu

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// metaFile is what Dump adds to CRIU's images and Restore needs.
const metaFile = "crsc.json"

// meta is the content of metaFile.
type meta struct {
	// Namespaces that CRIU was started in: they are not in the images, and
	// the processes have to be restored inside them.
	Namespaces []specs.LinuxNamespaceType `json:"namespaces"`
	// Hostname and Domainname of the container's UTS namespace, if it has a
	// pinned one of its own.
	Hostname   string `json:"hostname,omitempty"`
	Domainname string `json:"domainname,omitempty"`
	// IDMaps of the container's user namespace. They are compared with those of
	// the container that is restored, and say whom the files were captured of.
	IDMaps *IDMaps `json:"idMaps,omitempty"`
}

// maxMeta bounds the file; what Dump writes has a few hundred bytes.
const maxMeta = 64 << 10

func readMeta(images fs.FS) (*meta, error) {
	st, err := fs.Stat(images, metaFile)
	if err != nil {
		return nil, err
	}
	if st.Size() > maxMeta {
		return nil, fmt.Errorf("%w: %s: %d bytes", ErrCorrupt, metaFile, st.Size())
	}
	b, err := fs.ReadFile(images, metaFile)
	if err != nil {
		return nil, err
	}
	m := new(meta)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, metaFile, err)
	}
	return m, nil
}

func (m *meta) write(images string) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(images, metaFile), b, 0o600)
}

func (m *meta) has(t specs.LinuxNamespaceType) bool { return slices.Contains(m.Namespaces, t) }

// readHostname reads the names of the calling thread's UTS namespace.
func (m *meta) readHostname() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	m.Hostname, m.Domainname = unix.ByteSliceToString(u.Nodename[:]), unix.ByteSliceToString(u.Domainname[:])
	return nil
}

// writeHostname gives the calling thread's UTS namespace the names it had.
func (m *meta) writeHostname() error {
	if err := unix.Sethostname([]byte(m.Hostname)); err != nil {
		return fmt.Errorf("set hostname: %w", err)
	}
	if err := unix.Setdomainname([]byte(m.Domainname)); err != nil {
		return fmt.Errorf("set domain name: %w", err)
	}
	return nil
}
