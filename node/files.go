package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// put replaces a file by rename and says whether that changed anything. A
// symbolic link in its place is followed: administrators keep configurations
// elsewhere.
func put(path string, text []byte, mode fs.FileMode) (changed bool, err error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	old, err := os.ReadFile(path)
	if err == nil && bytes.Equal(old, text) {
		return false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if st, err := os.Stat(path); err == nil {
		mode = st.Mode().Perm()
	}
	return true, replace(path, bytes.NewReader(text), mode)
}

// replace writes a file under another name and renames it, synced: the node may
// lose power at any time.
func replace(path string, from io.Reader, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".crsc-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	_, err = io.Copy(f, from)
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

// saved is a file as it was.
type saved struct {
	path string
	text []byte
	none bool // there was no such file
}

func save(path string) (saved, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return saved{path: path, none: true}, nil
	}
	return saved{path: path, text: text}, err
}

func (s saved) restore() error {
	if s.none {
		return removeIfThere(s.path)
	}
	_, err := put(s.path, s.text, 0o644)
	return err
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// copyPrograms copies the programs in a directory. A running one is not
// disturbed: it keeps the file that it was started from.
func copyPrograms(from, to string, log func(string, ...any)) error {
	list, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range list {
		same, err := copyProgram(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
		if err != nil {
			return err
		}
		if !same {
			log("installed %s", e.Name())
		}
	}
	return nil
}

func copyProgram(from, to string) (same bool, err error) {
	text, err := os.ReadFile(from)
	if err != nil {
		return false, err
	}
	if old, err := os.ReadFile(to); err == nil && bytes.Equal(old, text) {
		return true, nil
	}
	return false, replace(to, bytes.NewReader(text), 0o755)
}
