package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crsc-io/crsc/journal"
)

const journalNames = `
CONTAINER is the ID of a container, or the beginning of it; DIR a directory,
as a name with a slash or one that exists.
`

const journalExitCodes = `
Exit codes: 0 clean, 1 torn tail (the last write was interrupted; the next
start of the container repairs it), 2 corrupt (committed data is damaged or
missing), 3 unsupported version, 4 anything else, 5 encrypted with
a key that was not given.`

// newJournal returns the commands that look at a journal. None of
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

// journalOptions say which journal, and with which key it is read.
type journalOptions struct {
	target
	key string
}

func (o *journalOptions) register(cmd *cobra.Command) {
	o.addFlags(cmd)
	cmd.Flags().StringVar(&o.key, "key", "", "`FILE` with the key of an encrypted journal; by default "+siblingKey+" beside DIR, where it is as long as the container lives")
}

// siblingKey is where the shim keeps the key, seen from the journal's directory.
const siblingKey = "../secret/journal.key"

// open returns the directory that the operator named, itself or by its container,
// and its key, which is nil if there is none.
func (o *journalOptions) open(arg string) (dir string, key *journal.Key, err error) {
	if dir, err = o.directory(arg); err != nil {
		return "", nil, err
	}
	key, err = o.loadKey(dir)
	return dir, key, err
}

// directory takes what has a slash, or is there, for a directory, and anything else
// for a container. It returns the directory itself where the operator named a link to
// it; the journal's file system refuses links.
func (o *journalOptions) directory(arg string) (string, error) {
	dir, err := filepath.EvalSymlinks(arg)
	if !errors.Is(err, os.ErrNotExist) || strings.ContainsRune(arg, filepath.Separator) {
		return dir, err
	}
	p, err := o.place(arg)
	return filepath.Join(p.Dir, "journal"), err
}

func (o *journalOptions) loadKey(dir string) (*journal.Key, error) {
	path := o.key
	if path == "" {
		path = filepath.Join(dir, siblingKey)
	}
	text, err := os.ReadFile(path)
	if o.key == "" && errors.Is(err, os.ErrNotExist) {
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
