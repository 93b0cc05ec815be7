package session

import (
	"bytes"
	"encoding/binary"
	"sort"

	"github.com/cespare/xxhash/v2"
)

// Class names the state of a session. The zero value is that of one in which nothing
// was said.
type Class struct {
	// state is all but the statements that are prepared, of which it takes only what
	// was done with them in the transaction that is open.
	state, statements uint64
}

// Like reports whether sessions of both classes answer a request alike. A bare one
// does not depend on statements that are prepared.
func (c Class) Like(o Class, bare bool) bool {
	return c.state == o.state && (bare || c.statements == o.statements)
}

// After is the class of a session in which a request was made that led from one class to
// another elsewhere.
func (c Class) After(to Class, bare bool) Class {
	if bare {
		to.statements = c.statements
	}
	return to
}

// protocol reads one connection.
type protocol interface {
	// wrote takes what the application wrote, heard what the server answered. They
	// return false for what they do not understand.
	wrote(data []byte) bool
	heard(data []byte) bool
	// class is that of what is asked next; resting: all that was asked has been
	// answered, and it holds.
	class() (c Class, resting bool)
	inside() uint64 // what was done in the transaction that is open; 0: there is none
	// begun: what was asked since the session rested does no more than to begin a
	// transaction, or to prepare the session.
	begun() bool
	// worked: what was asked when the session rested last did more than to prepare it.
	worked() bool
	// uncommitted: a transaction is open that the server was not asked to end.
	uncommitted() bool
	bare(data []byte) bool
	whole(data []byte) int
	name() string
	opening(data []byte) (c Class, ok bool) // see Tracker.Opening
	// sure: class is that of what is written next also before all is answered.
	sure() bool
	size() int                 // about what it takes of memory, in bytes
	blank() protocol           // one that has seen nothing
	probe(data []byte) []byte  // see Tracker.Probe
	greeting(data []byte) bool // see Tracker.Greetings
	over() bool                // that was said
	farewell() []byte          // what ends the session without an answer; nil: nothing does
}

// marksKept bounds the changes of class that a tracker remembers.
const marksKept = 2048

// Tracker follows one session. It is not safe for concurrent use.
type Tracker struct {
	id       uint32
	protocol protocol
	end      uint64 // output offset behind what was written
	lost     bool   // something was not understood
	heard    bool   // since the application wrote last
	marks    []mark // by offset
	probes   [][]byte
	// greetings: see Greetings
	greetings [][]byte
}

// mark is a change of class: what is written from the offset on meets this one.
type mark struct {
	offset uint64
	class  Class
	inside uint64
	begun  bool
	worked bool
	// unknown: the server had not answered all by then.
	unknown bool
}

// trackerSize, markSize, partSize and settingSize are about what a session, a mark, a piece
// of state and a setting take, in bytes.
const (
	trackerSize = 1 << 10
	markSize    = 40
	partSize    = 48
	settingSize = 16
)

// Sniff returns a tracker if the first bytes that an application writes, at offset 0,
// are of a protocol that it knows; else nil. The id is the connection's.
func Sniff(id uint32, first []byte) *Tracker {
	t := &Tracker{id: id}
	switch {
	case isRedis(first):
		t.protocol = &redis{}
	case isPostgres(first):
		t.protocol = newPostgres()
	default:
		return nil
	}
	t.mark()
	return t
}

// Wrote takes what the application wrote at an output offset.
func (t *Tracker) Wrote(offset uint64, data []byte) {
	switch {
	case t.lost:
		return
	case t.Resting():
		t.noteAside(data)
	case t.heard && !bytes.Equal(data, t.Farewell()):
		t.markUnanswered()
	}
	t.end, t.heard = offset+uint64(len(data)), false
	if !t.protocol.wrote(data) {
		t.Lose()
		return
	}
	t.mark()
}

// Heard takes what the server said next.
func (t *Tracker) Heard(data []byte) {
	if t.lost {
		return
	}
	t.heard = true
	if !t.protocol.heard(data) {
		t.Lose()
		return
	}
	t.mark()
}

// Lose makes the session unlike every other, and frees what is known of it.
func (t *Tracker) Lose() {
	t.lost, t.marks, t.probes, t.greetings, t.protocol = true, nil, nil, nil, t.protocol.blank()
	var b [12]byte
	binary.LittleEndian.PutUint32(b[:], t.id)
	t.note(mark{class: Class{state: xxhash.Sum64(append(b[:], "lost"...))}})
}

// Continue makes the session go on as another one, with the server's end of that.
func (t *Tracker) Continue(o *Tracker) {
	if o == nil || o.lost || t.lost || !t.Same(o) {
		t.Lose()
		return
	}
	t.protocol, t.heard = o.protocol, o.heard
	o.protocol = o.protocol.blank()
}

func (t *Tracker) mark() {
	if c, resting := t.protocol.class(); resting {
		t.note(t.markOf(c))
	}
}

func (t *Tracker) markOf(c Class) mark {
	return mark{class: c, inside: t.protocol.inside(), begun: t.protocol.begun(), worked: t.protocol.worked()}
}

// markUnanswered notes that the application goes on though not all that it asked has
// been answered.
func (t *Tracker) markUnanswered() {
	if !t.protocol.sure() {
		t.note(mark{unknown: true})
		return
	}
	c, _ := t.protocol.class()
	t.note(t.markOf(c))
}

// note enters a mark at the end of what was written.
func (t *Tracker) note(m mark) {
	m.offset = t.end
	n := len(t.marks)
	switch {
	case n > 0 && t.marks[n-1].class == m.class && t.marks[n-1].unknown == m.unknown && t.marks[n-1].worked == m.worked:
		return
	case n > 0 && t.marks[n-1].offset == t.end:
		t.marks[n-1] = m
		return
	case n == marksKept:
		t.marks = append(t.marks[:0], t.marks[n/2:]...)
	}
	t.marks = append(t.marks, m)
}

// At is the class of the session when the application had written up to an offset and
// was answered; not ok: it is forgotten, or the application had not waited for answers.
func (t *Tracker) At(offset uint64) (c Class, ok bool) {
	m := t.markAt(offset)
	if m == nil || m.unknown {
		return Class{}, false
	}
	return m.class, true
}

// Inside names what had been done in the transaction that was open then; 0: there was
// none.
func (t *Tracker) Inside(offset uint64) uint64 {
	if m := t.markAt(offset); m != nil {
		return m.inside
	}
	return 0
}

// Begun reports whether a transaction was open then in which nothing had been done but to
// prepare statements: any other session comes there by the same request, and the server
// does not mind how often it is made.
func (t *Tracker) Begun(offset uint64) bool {
	m := t.markAt(offset)
	return m != nil && m.inside != 0 && m.begun
}

// Worked reports whether what changed the class there did more than that: it must not be
// asked again, nor answered for another.
func (t *Tracker) Worked(offset uint64) bool {
	m := t.markAt(offset)
	return m == nil || m.worked
}

// Begins reports whether what was asked last, and is not answered, does no more than to
// begin a transaction, or to prepare the session for what comes.
func (t *Tracker) Begins() bool { return !t.lost && !t.Resting() && t.protocol.begun() }

// Uncommitted reports whether a transaction is open that the server was not asked to end:
// all that was done in it is undone when the session ends.
func (t *Tracker) Uncommitted() bool { return !t.lost && t.protocol.uncommitted() }

// Opening is the class of a session that begins with data, if that is all it takes; not ok:
// it takes more, or the class says nothing of it. Clients may write the same in another order.
func (t *Tracker) Opening(data []byte) (c Class, ok bool) { return t.protocol.opening(data) }

// Bare reports whether none of the requests that data consists of has to do with
// statements that are prepared.
func (t *Tracker) Bare(data []byte) bool { return t.protocol.bare(data) }

func (t *Tracker) markAt(offset uint64) *mark {
	i := sort.Search(len(t.marks), func(i int) bool { return t.marks[i].offset > offset })
	if i == 0 {
		return nil
	}
	return &t.marks[i-1]
}

// Resting reports whether all that was asked has been answered, as far as is known.
func (t *Tracker) Resting() bool {
	if t.lost {
		return false
	}
	_, resting := t.protocol.class()
	return resting
}

// Size is about how much memory is in use, in bytes.
func (t *Tracker) Size() int {
	return trackerSize + cap(t.marks)*markSize + (len(t.probes)+len(t.greetings))*probeSize + t.protocol.size()
}

// Lost reports that something was said which is not understood.
func (t *Tracker) Lost() bool { return t.lost }

// Same reports whether both sessions are of one protocol.
func (t *Tracker) Same(o *Tracker) bool { return o != nil && t.protocol.name() == o.protocol.name() }

// Farewell is the request that ends a session: the server answers by closing the connection.
// Nil: there is none.
func (t *Tracker) Farewell() []byte { return t.protocol.farewell() }

// Over reports whether that was said.
func (t *Tracker) Over() bool { return t.protocol.over() }

// Whole is the length of the requests that data consists of: 0 if the last one is not
// whole, -1 if it is no such thing. Data begins with a request.
func (t *Tracker) Whole(data []byte) int { return t.protocol.whole(data) }

// parts is a set of named pieces of state. Its sum does not depend on their order.
type parts struct {
	list map[uint64]uint64 // by the hash of the name
	sum  uint64
}

// partsKept bounds the pieces of one session.
const partsKept = 4096

func (p *parts) set(name string, value []byte) bool {
	if p.list == nil {
		p.list = map[uint64]uint64{}
	}
	if len(p.list) >= partsKept {
		return false
	}
	p.drop(name)
	key := xxhash.Sum64String(name)
	v := chain(key, value)
	p.list[key] = v
	p.sum += v
	return true
}

func (p *parts) has(name string) bool {
	_, ok := p.list[xxhash.Sum64String(name)]
	return ok
}

func (p *parts) drop(name string) {
	key := xxhash.Sum64String(name)
	p.sum -= p.list[key]
	delete(p.list, key)
}

// bufferKept bounds a buffer that is kept while it is empty, in bytes.
const bufferKept = 4 << 10

func emptied(b []byte) []byte {
	if cap(b) > bufferKept {
		return nil
	}
	return b[:0]
}

// chain continues a hash with a further piece.
func chain(h uint64, data []byte) uint64 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], h)
	d := xxhash.New()
	_, _ = d.Write(b[:])
	_, _ = d.Write(data)
	return d.Sum64()
}
