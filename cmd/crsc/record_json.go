package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/crsc-io/crsc/journal"
)

// jsonRecord is a record as JSON: only the fields of its type are there.
type jsonRecord struct {
	Position    uint64  `json:"position"`
	End         uint64  `json:"end"`
	Time        string  `json:"time,omitempty"` // RFC 3339, UTC
	Type        string  `json:"type"`
	Conn        *uint32 `json:"conn,omitempty"`
	Offset      *uint64 `json:"offset,omitempty"`
	Length      *uint64 `json:"length,omitempty"`
	AfterOutput *uint64 `json:"after_output,omitempty"`
	Hash        string  `json:"hash,omitempty"` // xxhash64, hexadecimal
	Direction   string  `json:"direction,omitempty"`
	Client      string  `json:"client,omitempty"`
	Server      string  `json:"server,omitempty"`
	LegPort     *uint16 `json:"leg_port,omitempty"`
	Kind        string  `json:"kind,omitempty"`
	Errno       *uint32 `json:"errno,omitempty"`
	Mark        string  `json:"mark,omitempty"`
	Checkpoint  *uint64 `json:"checkpoint,omitempty"`
	Source      string  `json:"source,omitempty"`
	Dest        string  `json:"destination,omitempty"`
	AfterSent   *uint64 `json:"after_sent,omitempty"`
	Datagram    uint64  `json:"datagram,omitempty"` // position
	Flow        string  `json:"flow,omitempty"`     // xxhash64, hexadecimal
	Payload     []byte  `json:"payload,omitempty"`  // base64
}

func printJSON(w io.Writer, rec *journal.Record, o dumpOptions) error {
	j := jsonRecord{Position: uint64(rec.Position), End: uint64(rec.End), Type: rec.Type.String()}
	if !rec.Time.IsZero() {
		j.Time = rec.Time.UTC().Format(time.RFC3339Nano)
	}
	if ofConn(rec) {
		j.Conn = &rec.Conn
	}
	length := uint64(len(rec.Payload))
	switch rec.Type {
	case journal.TypeOpen:
		j.Direction, j.LegPort = rec.Open.Direction.String(), &rec.Open.LegPort
		j.Client, j.Server = rec.Open.Client.String(), rec.Open.Server.String()
	case journal.TypeInput:
		j.Offset, j.Length, j.AfterOutput = &rec.Offset, &length, &rec.OutPos
	case journal.TypeConsumed, journal.TypeUrgent, journal.TypeRepeated:
		j.Offset = &rec.Offset
	case journal.TypeOutput:
		length = uint64(rec.Length)
		j.Offset, j.Length, j.Hash = &rec.Offset, &length, fmt.Sprintf("%016x", rec.Hash)
	case journal.TypeOutputBytes:
		j.Offset, j.Length = &rec.Offset, &length
	case journal.TypeClose:
		j.Direction, j.Kind, j.Offset = rec.Direction.String(), rec.Close.String(), &rec.Offset
	case journal.TypeFailed:
		j.Errno = &rec.Errno
	case journal.TypeMark:
		j.Mark, j.Checkpoint = rec.Mark.String(), &rec.Checkpoint
	case journal.TypeDatagram:
		j.Source, j.Dest, j.Length, j.AfterSent = rec.Source.String(), rec.Dest.String(), &length, &rec.Sent
	case journal.TypeDatagramTaken:
		j.Datagram = uint64(rec.Of)
	case journal.TypeDatagramSent:
		j.Flow, j.Hash = fmt.Sprintf("%016x", rec.Flow), fmt.Sprintf("%016x", rec.Hash)
	}
	if o.payload {
		j.Payload = rec.Payload
	}
	return json.NewEncoder(w).Encode(j)
}
