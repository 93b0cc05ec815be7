package recovery

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/journal"
)

// keyFile is where crsc journal looks for a journal's key, beside the journal's
// directory.
const keyFile = "journal.key"

func secretDir(state string) string { return filepath.Join(state, "secret") }

// newSecret makes a key for the journal of the container whose state is in a
// directory. For the operator it is in a ramfs, which is neither written to a disk
// nor swapped out.
func newSecret(state string) (*journal.Key, error) {
	key, err := journal.NewKey()
	if err != nil {
		return nil, err
	}
	dir := secretDir(state)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	err = unix.Mount("crsc", dir, "ramfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700")
	if err == nil {
		err = unix.Mount("", dir, "", unix.MS_PRIVATE, "")
	}
	if err == nil {
		err = writeSecret(state, key)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ramfs for the journal's key at %s: %w", dir, err), destroySecret(state))
	}
	return key, nil
}

// writeSecret puts a key into the ramfs, in place of the one that is there.
func writeSecret(state string, key *journal.Key) error {
	return os.WriteFile(filepath.Join(secretDir(state), keyFile), key.Text(), 0o600)
}

// destroySecret destroys the key. It is no error if there is none.
func destroySecret(state string) error {
	dir := secretDir(state)
	err := overwrite(filepath.Join(dir, keyFile))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, removeMemory(dir))
}

// overwrite fills a file with zeros: in a ramfs these are the pages themselves,
// whoever else still has the file open or mounted.
func overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.Write(make([]byte, info.Size()))
	}
	return errors.Join(err, f.Close())
}
