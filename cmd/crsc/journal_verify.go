package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/crsc-io/crsc/journal"
)

func newJournalVerify() *cobra.Command {
	var o journalOptions
	cmd := &cobra.Command{
		Use:   "verify CONTAINER|DIR",
		Short: "Check every record of a journal",
		Long: "Check every record of a journal, without changing anything. Of an encrypted\n" +
			"journal without its key, only the checksums.\n" + journalNames + journalExitCodes,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, key, err := o.open(args[0])
			if err != nil {
				return err
			}
			s, err := journal.Verify(nil, dir, key)
			if s.Segments > 0 {
				sealed := ""
				if s.Sealed {
					sealed = " (encrypted, and there is no key: only the checksums were looked at)"
				}
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %d segments, %d good records, positions %d to %d%s\n",
					verdict(err), s.Segments, s.Records, s.Start, s.End, sealed); err != nil {
					return err
				}
			}
			return err
		},
	}
	o.register(cmd)
	return cmd
}

func verdict(err error) string {
	switch exitCode(err) {
	case exitOK:
		return "clean"
	case exitTornTail:
		return "torn tail"
	case exitCorrupt:
		return "corrupt"
	}
	return "unreadable"
}
