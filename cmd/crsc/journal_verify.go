package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/crsc-io/crsc/journal"
)

func newJournalVerify() *cobra.Command {
	return &cobra.Command{
		Use:   "verify DIR",
		Short: "Check every record of a journal",
		Long:  "Check every record of a journal, without changing anything.\n" + journalExitCodes,
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := journalDir(args[0])
			if err != nil {
				return err
			}
			s, err := journal.Verify(nil, dir)
			if s.Segments > 0 {
				if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %d segments, %d good records, positions %d to %d\n",
					verdict(err), s.Segments, s.Records, s.Start, s.End); err != nil {
					return err
				}
			}
			return err
		},
	}
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
