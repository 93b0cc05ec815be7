package session

import (
	"bytes"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// postgres reads version 3.0 of the protocol. The application's messages say what is
// asked of a session, the server's ReadyForQuery that all is answered, and whether a
// transaction is open.
type postgres struct {
	in, out    messages
	settings   uint64 // a chain of the startup and of the statements that set something
	statements parts
	tx         uint64 // a chain of what was done since the last rest outside of one
	turn       uint64 // the same of what is asked at present
	acts       bool   // that is more than to prepare statements
	open       bool   // in a transaction
	fresh      bool   // tx is that of what begins one, and nothing was done since
	owed       int    // requests that are not answered
	oneByte    bool   // the server answers a request for encryption with one byte
	began      bool   // the startup message was seen
	ready      bool   // the server has let the application in
	// finishes: what is asked and not answered may end the transaction. various: statements
	// are prepared that might.
	finishes, various bool
	ended             bool // Terminate was seen
	sets              bool // what is asked and not answered only prepares statements
	// unnamed: the statement without a name was prepared since the last Sync. altered:
	// what is asked and not answered alters the session.
	unnamed, altered bool
	// works: what was asked since the session rested does more than to prepare it, or did.
	// rests: all was answered, and nothing was asked since. parsed and bound: the statement
	// and the portal without a name only set something.
	works, rests, parsed, bound bool
	// apart: of what was asked since the session rested, something was done outside of a
	// transaction. mixed: and then the one was begun that is open.
	apart, mixed bool
}

const (
	startupVersion = 3 << 16
	sslRequest     = 80877103
	gssRequest     = 80877104
	// statementHead bounds what is kept of a message, in bytes; the text of a longer
	// statement is not looked at.
	statementHead = 64 << 10
)

func isPostgres(first []byte) bool {
	if len(first) < 8 {
		return false
	}
	n, code := binary.BigEndian.Uint32(first), binary.BigEndian.Uint32(first[4:])
	return n >= 8 && n <= 10000 && (code == startupVersion || n == 8 && (code == sslRequest || code == gssRequest))
}

func newPostgres() *postgres {
	return &postgres{in: messages{keep: statementHead, bare: true}, out: messages{keep: 16}}
}

func (s *postgres) class() (Class, bool) {
	state := s.settings + s.inside()
	if !s.ready {
		state += s.turn // what was said of who asks
	}
	return Class{state, s.statements.sum}, s.owed == 0 && s.in.empty()
}

func (s *postgres) wrote(data []byte) bool {
	return s.in.read(data, s.asked)
}

func (s *postgres) inside() uint64 {
	if !s.open {
		return 0
	}
	return s.tx
}

func (s *postgres) begun() bool { return s.fresh || s.sets || !s.ready }

func (s *postgres) worked() bool { return s.works }

func (s *postgres) uncommitted() bool { return s.open && !s.finishes && !s.mixed }

func (*postgres) bare(data []byte) bool {
	m := messages{keep: 1, bare: len(data) > 0 && data[0] == 0}
	return m.read(data, func(kind byte, _ []byte, _ bool) bool { return !bytes.ContainsRune([]byte("PBDCEF"), rune(kind)) })
}

func (s *postgres) opening(data []byte) (Class, bool) {
	n := newPostgres()
	if !isPostgres(data) || s.whole(data) != len(data) || !n.wrote(data) || !n.began || n.owed != 1 {
		return Class{}, false
	}
	return Class{state: n.settings}, true
}

func (*postgres) name() string { return "PostgreSQL" }

// sure: whether a transaction is open is known when all is answered. Before the first one
// there can't be any.
func (s *postgres) sure() bool { return !s.ready && s.in.empty() }

func (s *postgres) size() int {
	return cap(s.in.body) + cap(s.out.body) + partSize*len(s.statements.list)
}

func (*postgres) blank() protocol { return newPostgres() }

func (s *postgres) over() bool { return s.ended }

func (*postgres) farewell() []byte { return []byte("X\x00\x00\x00\x04") }

func (s *postgres) heard(data []byte) bool {
	if s.oneByte && len(data) > 0 {
		if data[0] != 'N' {
			return false // what follows is encrypted
		}
		s.oneByte, s.in.bare, data = false, true, data[1:]
		s.owed--
	}
	return s.out.read(data, s.answered)
}

// asked takes a message of the application. Kind is 0 for one of the beginning.
func (s *postgres) asked(kind byte, body []byte, whole bool) bool {
	alone := !s.open && s.owed == 0 && s.tx == 0 && !s.acts // nothing that may open a transaction is under way
	only := alone && s.turn == 0
	s.turn = chain(s.turn, binary.BigEndian.AppendUint64([]byte{kind}, s.in.digest.Sum64()))
	s.acts = s.acts || !bytes.ContainsRune([]byte("PDCHS"), rune(kind))
	if (kind == 'S' || kind == 'Q') && s.acts {
		s.fresh = only && kind == 'Q' && whole && begins(cString(body))
		s.tx = chain(s.tx, binary.BigEndian.AppendUint64(nil, s.turn))
	}
	if kind == 'S' || kind == 'Q' {
		s.sets = !s.acts && s.owed == 0
		s.turn, s.acts = 0, false
	}
	s.works, s.rests = s.works && !s.rests, false
	switch kind {
	case 0:
		return s.startup(body)
	case 'Q':
		s.owed++
		s.works = s.works || effectOf(cString(body)) != sets
		s.unnamed = false
		s.finishes = s.finishes || !works(cString(body))
		s.statements.drop("")
		return whole && s.text(cString(body), alone)
	case 'S':
		s.owed++
		s.unnamed = false
	case 'P':
		return whole && s.parse(body, alone)
	case 'B':
		return s.bind(body)
	case 'C':
		if len(body) > 1 && body[0] == 'S' {
			name := cString(body[1:])
			s.altered = s.altered || s.statements.has(name)
			s.statements.drop(name)
		}
	case 'E':
		s.works = s.works || !s.bound || cString(body) != ""
		s.finishes = s.finishes || s.various
		s.statements.drop("") // see parse
	case 'X':
		s.ended = true
	case 'F':
		return false // a function that could do anything
	}
	return true
}

func (s *postgres) startup(body []byte) bool {
	if len(body) < 4 {
		return false
	}
	switch code := binary.BigEndian.Uint32(body); {
	case code == sslRequest || code == gssRequest:
		s.oneByte = true
	case code == startupVersion && !s.began:
		// The names stand in any order.
		for list := bytes.Split(body[4:], []byte{0}); len(list) > 1; list = list[2:] {
			s.settings += chain(chain(0, list[0]), list[1])
		}
		s.settings += chain(0, nil) // also if it says nothing
		s.began = true
	default:
		return false
	}
	s.owed++
	return true
}

// parse takes a Parse message: a statement is prepared. One without a name lasts, in
// effect, until it is executed.
func (s *postgres) parse(body []byte, alone bool) bool {
	name := cString(body)
	if name == "" {
		s.unnamed = true
	} else {
		s.altered = true
	}
	rest := body[min(len(body), len(name)+1):]
	s.various = s.various || !works(cString(rest))
	s.parsed = name == "" && effectOf(cString(rest)) == sets
	return s.text(cString(rest), alone && name == "") && s.statements.set(name, rest)
}

// bind takes a Bind message. A statement without a name that is used once more, after
// it was executed, is the session's own.
func (s *postgres) bind(body []byte) bool {
	portal := cString(body)
	named := cString(body[min(len(body), len(portal)+1):]) != ""
	if portal == "" {
		s.bound = s.parsed && !named
	}
	if named {
		return true
	}
	return s.unnamed || s.statements.has("")
}

// text takes the SQL of a statement. What it sets is set if it is alone: executed once,
// and in no transaction, with which it might be undone.
func (s *postgres) text(sql string, alone bool) bool {
	switch effectOf(sql) {
	case neutral:
		return true
	case sets:
		if !alone {
			return false
		}
		s.settings = chain(s.settings, []byte(sql))
		s.altered = true
		return true
	}
	return false
}

// answered takes a message of the server.
func (s *postgres) answered(kind byte, body []byte, _ bool) bool {
	switch kind {
	case 'Z':
	case 'E':
		return !s.altered // it may not have been done
	default:
		return true
	}
	if len(body) != 1 || s.owed == 0 {
		return false
	}
	s.apart = s.apart || body[0] == 'I'
	if s.owed--; s.owed > 0 {
		return true
	}
	s.mixed, s.apart = body[0] != 'I' && (s.mixed || s.apart), false
	s.altered, s.ready, s.sets, s.finishes, s.rests = false, true, false, false, true
	s.turn, s.acts = 0, false // as after what begins a session
	switch s.open = body[0] != 'I'; {
	case !s.open:
		s.tx, s.fresh = 0, false
	case body[0] == 'E':
		s.tx, s.fresh = chain(s.tx, body), false
	}
	return true
}

func cString(b []byte) string {
	text, _, _ := bytes.Cut(b, []byte{0})
	return string(text)
}

func (s *postgres) whole(data []byte) int {
	last := byte(0)
	rest := data
	for len(rest) > 0 {
		head := 1
		if rest[0] == 0 { // the length of a startup message
			head = 0
		}
		if len(rest) < head+4 {
			return 0
		}
		n := int(binary.BigEndian.Uint32(rest[head:]))
		switch {
		case n < 4 || n > 1<<30:
			return -1
		case len(rest) < head+n:
			return 0
		}
		last = 0
		if head == 1 {
			last = rest[0]
		}
		rest = rest[head+n:]
	}
	switch last {
	case 0, 'Q', 'S', 'p', 'X', 'c', 'f':
		return len(data)
	}
	return 0
}

// messages cuts a stream into messages: a kind, a length in four bytes, a body.
type messages struct {
	keep int    // of a body
	bare bool   // the next has no kind
	head []byte // what is here of kind and length
	body []byte
	left int // bytes of the body that are to come
	on   bool
	// digest is of the whole body.
	digest xxhash.Digest
}

func (m *messages) empty() bool { return !m.on && len(m.head) == 0 }

func (m *messages) read(data []byte, take func(kind byte, body []byte, whole bool) bool) bool {
	for {
		if !m.on {
			size := 5
			if m.bare {
				size = 4
			}
			n := min(size-len(m.head), len(data))
			m.head, data = append(m.head, data[:n]...), data[n:]
			if len(m.head) < size {
				return true
			}
			m.left = int(binary.BigEndian.Uint32(m.head[size-4:])) - 4
			if m.left < 0 || m.left > 1<<30 {
				return false
			}
			m.on, m.body = true, m.body[:0]
			m.digest.Reset()
		}
		n := min(m.left, len(data))
		room := max(min(m.keep-len(m.body), n), 0)
		whole := room == n
		m.body = append(m.body, data[:room]...)
		_, _ = m.digest.Write(data[:n])
		data, m.left = data[n:], m.left-n
		if m.left > 0 {
			return true
		}
		kind := byte(0)
		if !m.bare {
			kind = m.head[0]
		}
		m.on, m.bare, m.head = false, false, m.head[:0]
		if !take(kind, m.body, whole && len(m.body) < m.keep) {
			return false
		}
		m.body = emptied(m.body)
		if len(data) == 0 {
			return true
		}
	}
}
