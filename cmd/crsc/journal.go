package main

import (
	"path/filepath"

	"github.com/spf13/cobra"
)

const journalExitCodes = `
Exit codes: 0 clean, 1 torn tail (the last write was interrupted; the next
start of the container repairs it), 2 corrupt (committed data is damaged or
missing), 3 unsupported version, 4 anything else.`

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

// journalDir returns the directory itself where the operator named a link to
// it; the journal's file system refuses links.
func journalDir(arg string) (string, error) {
	return filepath.EvalSymlinks(arg)
}
