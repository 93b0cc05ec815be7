package main

import (
	"fmt"
	"io"
	"strconv"
	"syscall"

	"github.com/crsc-io/crsc/journal"
)

// payloadLimit is how many bytes of a payload a line shows.
const payloadLimit = 64

const lineFormat = "%-10v  %-27s  %-12s  %6s  %s\n"

func printHead(w io.Writer) error {
	_, err := fmt.Fprintf(w, lineFormat, "POSITION", "TIME", "TYPE", "CONN", "DETAIL")
	return err
}

func printLine(w io.Writer, rec *journal.Record, o dumpOptions) error {
	conn, at := "-", "-"
	if ofConn(rec) {
		conn = strconv.FormatUint(uint64(rec.Conn), 10)
	}
	if !rec.Time.IsZero() {
		at = rec.Time.UTC().Format("2006-01-02T15:04:05.000000Z")
	}
	_, err := fmt.Fprintf(w, lineFormat, rec.Position, at, rec.Type, conn, detail(rec, o.payload))
	return err
}

// ofConn reports whether a record belongs to a connection.
func ofConn(rec *journal.Record) bool {
	return rec.Type < journal.TypeMark || rec.Type >= journal.TypeUrgent
}

// detail renders the fields that depend on the type.
func detail(rec *journal.Record, payload bool) string {
	switch rec.Type {
	case journal.TypeOpen:
		return fmt.Sprintf("%s client=%s server=%s leg-port=%d", rec.Open.Direction, rec.Open.Client, rec.Open.Server, rec.Open.LegPort)
	case journal.TypeInput:
		return fmt.Sprintf("offset=%d length=%d after-output=%d", rec.Offset, len(rec.Payload), rec.OutPos) + quoted(rec, payload)
	case journal.TypeConsumed, journal.TypeUrgent, journal.TypeRepeated:
		return fmt.Sprintf("offset=%d", rec.Offset)
	case journal.TypeOutput:
		return fmt.Sprintf("offset=%d length=%d hash=%016x", rec.Offset, rec.Length, rec.Hash)
	case journal.TypeOutputBytes:
		return fmt.Sprintf("offset=%d length=%d", rec.Offset, len(rec.Payload)) + quoted(rec, payload)
	case journal.TypeClose:
		return fmt.Sprintf("%s %s offset=%d", rec.Direction, rec.Close, rec.Offset)
	case journal.TypeFailed:
		return fmt.Sprintf("errno=%d (%v)", rec.Errno, syscall.Errno(rec.Errno))
	case journal.TypeMark:
		return fmt.Sprintf("%s checkpoint=%d", rec.Mark, rec.Checkpoint)
	case journal.TypeDatagram:
		return fmt.Sprintf("from=%s to=%s length=%d after-sent=%d", rec.Source, rec.Dest, len(rec.Payload), rec.Sent) + quoted(rec, payload)
	case journal.TypeDatagramTaken:
		return fmt.Sprintf("datagram=%d", rec.Of)
	case journal.TypeDatagramSent:
		return fmt.Sprintf("flow=%016x hash=%016x", rec.Flow, rec.Hash)
	}
	return ""
}

// quoted renders the beginning of the payload so that no terminal can be
// harmed by it.
func quoted(rec *journal.Record, payload bool) string {
	if !payload {
		return ""
	}
	if more := len(rec.Payload) - payloadLimit; more > 0 {
		return fmt.Sprintf(" %+q… and %d bytes more", rec.Payload[:payloadLimit], more)
	}
	return fmt.Sprintf(" %+q", rec.Payload)
}
