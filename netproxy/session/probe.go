package session

import (
	"bytes"
	"slices"
	"strings"
)

// Pools ask a server whether it is there when they have not used a session for a
// while, by a clock that runs on while a container is down. Such a question does
// nothing, and has one answer.

const (
	// probesKept bounds the questions of one session that are remembered, each of
	// probeSize bytes at most.
	probesKept = 8
	probeSize  = 256
)

// Probe returns what a server answers, in a session without an open transaction, if
// data only asks whether it is there; else nil.
func (t *Tracker) Probe(data []byte) []byte {
	if len(data) > probeSize {
		return nil
	}
	return t.protocol.probe(data)
}

// Probes are the questions for which Probe has an answer that were asked in the session.
func (t *Tracker) Probes() [][]byte { return t.probes }

// Greetings are what a client tells a server of itself, on which no later answer depends.
func (t *Tracker) Greetings() [][]byte { return t.greetings }

// noteAside takes what is written while nothing is left to be answered.
func (t *Tracker) noteAside(data []byte) {
	switch {
	case len(data) > probeSize:
	case t.protocol.probe(data) != nil:
		remember(&t.probes, data)
	case t.protocol.greeting(data):
		remember(&t.greetings, data)
	}
}

func remember(list *[][]byte, data []byte) {
	if len(*list) < probesKept && !slices.ContainsFunc(*list, func(known []byte) bool { return bytes.Equal(known, data) }) {
		*list = append(*list, bytes.Clone(data))
	}
}

func (*postgres) greeting([]byte) bool { return false }

func (*redis) greeting(data []byte) bool {
	var c redisCommand
	for ; len(data) > 0; data = data[c.size:] {
		if c.parse(data) != 0 {
			return false
		}
		if part, ok := c.part(); !ok || part != "" {
			return false
		}
	}
	return true
}

// probe knows the command without arguments.
func (*redis) probe(data []byte) []byte {
	var c redisCommand
	if c.parse(data) != 0 || c.size != len(data) || c.count != 1 || c.name() != "PING" {
		return nil
	}
	return []byte("+PONG\r\n")
}

// probe knows the simple query without a statement (PostgreSQL, Message Flow: Simple
// Query): EmptyQueryResponse, ReadyForQuery.
func (s *postgres) probe(data []byte) []byte {
	if len(data) < 6 || data[0] != 'Q' || s.whole(data) != len(data) || bytes.IndexByte(data[5:], 0) != len(data)-6 ||
		!nothing(string(data[5:len(data)-1])) {
		return nil
	}
	return []byte("I\x00\x00\x00\x04Z\x00\x00\x00\x05I")
}

// nothing reports whether SQL has only white space, comments and semicolons. Comments
// in comments are not understood, which is on the safe side.
func nothing(sql string) bool {
	for {
		sql = strings.TrimLeft(sql, " \t\r\n\f;")
		ended := true
		switch {
		case sql == "":
			return true
		case strings.HasPrefix(sql, "--"):
			n := strings.IndexAny(sql, "\r\n")
			if n < 0 {
				return true
			}
			sql = sql[n:]
		case strings.HasPrefix(sql, "/*"):
			var text string
			text, sql, ended = strings.Cut(sql[2:], "*/")
			ended = ended && !strings.Contains(text, "/*")
		default:
			return false
		}
		if !ended {
			return false
		}
	}
}
