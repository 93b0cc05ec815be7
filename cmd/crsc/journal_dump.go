package main

import (
	"bufio"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/crsc-io/crsc/journal"
)

type dumpOptions struct {
	json    bool
	payload bool
	from    uint64
	conn    uint32
	oneConn bool
	source  journalOptions
}

func newJournalDump() *cobra.Command {
	var o dumpOptions
	cmd := &cobra.Command{
		Use:   "dump CONTAINER|DIR",
		Short: "Print the records of a journal",
		Long: "Print the records of a journal in order, one a line, up to the end or to the\n" +
			"first damage, without changing anything.\n" + journalNames + journalExitCodes,
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.oneConn = cmd.Flags().Changed("conn")
			dir, key, err := o.source.open(args[0])
			if err != nil {
				return err
			}
			return dumpJournal(cmd.OutOrStdout(), dir, key, o)
		},
	}
	o.source.register(cmd)
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON objects, one a line")
	cmd.Flags().BoolVar(&o.payload, "payload", false, "print payloads: the beginning, quoted; in JSON all of it, in base64")
	cmd.Flags().Uint64Var(&o.from, "from", 0, "start with the first record at or after `POSITION`")
	cmd.Flags().Uint32Var(&o.conn, "conn", 0, "print only the records of connection `N`")
	return cmd
}

// dumpJournal prints what can be read before it returns the error that ended
// the reading.
func dumpJournal(out io.Writer, dir string, key *journal.Key, o dumpOptions) error {
	r, err := journal.OpenReader(nil, dir, journal.Position(o.from), key)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(out)
	print := printLine
	if o.json {
		print = printJSON
	} else if err := printHead(w); err != nil {
		return err
	}
	err = printRecords(w, r, o, print)
	return errors.Join(err, w.Flush(), r.Close())
}

func printRecords(w io.Writer, r *journal.Reader, o dumpOptions, print func(io.Writer, *journal.Record, dumpOptions) error) error {
	var rec journal.Record
	for {
		err := r.Next(&rec)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if o.oneConn && (!ofConn(&rec) || rec.Conn != o.conn) {
			continue
		}
		if err := print(w, &rec, o); err != nil {
			return err
		}
	}
}
