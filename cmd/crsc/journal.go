package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/crsc-io/crsc/journal"
)

const journalExitCodes = `
Exit codes: 0 clean, 1 torn tail (the last write was interrupted; the next
start of the container repairs it), 2 corrupt (committed data is damaged or
missing), 3 unsupported version, 4 anything else, 5 encrypted with
a key that was not given.`

// newJournal returns the commands that look at a journal's directory. None of
// them changes it, so they may run beside the shim that writes it.
func newJournal() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "journal",
		Short: "Look at the journal of a container's network traffic",
		Args:  cobra.NoArgs,
		RunE:  help,
	}
	cmd.AddCommand(newJournalDump(), newJournalVerify())
	return cmd
}

// keyOption is the key of an encrypted journal.
type keyOption struct {
	path string
}

func (o *keyOption) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.path, "key", "", "`FILE` with the key of an encrypted journal; by default "+siblingKey+" beside DIR, where it is as long as the container lives")
}

// siblingKey is where the shim keeps the key, seen from the journal's directory.
const siblingKey = "../secret/journal.key"

// load returns nil if there is no key.
func (o *keyOption) load(dir string) (*journal.Key, error) {
	path := o.path
	if path == "" {
		path = filepath.Join(dir, siblingKey)
	}
	text, err := os.ReadFile(path)
	if o.path == "" && errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	key, err := journal.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// journalDir returns the directory itself where the operator named a link to
// it; the journal's file system refuses links.
func journalDir(arg string) (string, error) {
	dir, err := filepath.EvalSymlinks(arg)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w; that of a container is NAMESPACE/ID/journal in the node's state directory", err)
	}
	return dir, err
}
