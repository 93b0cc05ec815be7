package status

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Place is where a container's state is.
type Place struct {
	Namespace, ID string
	// Dir has the status file.
	Dir string
}

// Places returns those of all containers below a state directory, sorted by
// namespace and ID. Directories without a status file are passed over.
//
// Errors: a directory that can't be read. It is none if stateDir does not exist:
// then no container was ever protected.
func Places(stateDir string) ([]Place, error) {
	namespaces, err := subdirectories(stateDir)
	if err != nil {
		return nil, err
	}
	var list []Place
	for _, namespace := range namespaces {
		ids, err := subdirectories(filepath.Join(stateDir, namespace))
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			dir := filepath.Join(stateDir, namespace, id)
			if _, err := os.Lstat(filepath.Join(dir, FileName)); err == nil {
				list = append(list, Place{Namespace: namespace, ID: id, Dir: dir})
			} else if !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("status: %w", err)
			}
		}
	}
	return list, nil
}

func subdirectories(dir string) (names []string, err error) {
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("status: %w", err)
	}
	for _, e := range list {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
