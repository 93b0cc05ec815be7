package session

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
)

// redis reads RESP. A command is an array of bulk strings, and has one answer. What one that
// sets its session's state does to it depends on whether it is refused.
type redis struct {
	state parts
	tx    uint64 // a chain of what was asked since MULTI or WATCH; 0: nothing
	multi bool
	mixed bool   // MULTI was said while other commands were not answered
	fresh bool   // tx is that of MULTI, and nothing was asked since
	sets  bool   // all that was asked since the session rested sets its state
	buf   []byte // a command that is not whole
	skip  int    // bytes of one that need not be seen
	owed  int    // commands that are not answered
	told  int    // those that are
	said  replies
	// settings are the commands that are not answered and set the state.
	settings []setting
}

// setting is a command that sets the state of its session.
type setting struct {
	at     int    // how many commands are answered with it
	before uint64 // sum of the state
}

// settingsKept bounds those that are not answered.
const settingsKept = 64

// redisHead bounds what is kept of a command, in bytes: those that change their session
// are shorter.
const redisHead = 16 << 10

func isRedis(first []byte) bool {
	return len(first) >= 2 && first[0] == '*' && first[1] >= '1' && first[1] <= '9'
}

func (r *redis) inside() uint64 { return r.tx }

func (r *redis) begun() bool { return r.fresh || r.sets }

func (r *redis) worked() bool { return !r.sets }

func (r *redis) uncommitted() bool { return r.multi && !r.mixed }

func (*redis) bare([]byte) bool { return true }

func (*redis) opening([]byte) (Class, bool) { return Class{}, false }

func (*redis) name() string { return "Redis" }

func (r *redis) size() int {
	return cap(r.buf) + cap(r.said.line) + partSize*len(r.state.list) + settingSize*cap(r.settings)
}

func (*redis) blank() protocol { return &redis{} }

func (*redis) over() bool { return false }

func (*redis) farewell() []byte { return nil }

func (r *redis) heard(data []byte) bool {
	return r.said.read(data, r.answered)
}

// answered takes the answer to the next command. The state behind one that was refused is
// like that only where it was the same before.
func (r *redis) answered(refused bool) bool {
	r.owed--
	r.told++
	if len(r.settings) > 0 && r.settings[0].at == r.told {
		before := r.settings[0].before
		r.settings = r.settings[1:]
		if refused && !r.state.set("refused", binary.LittleEndian.AppendUint64(nil, before)) {
			return false
		}
	}
	return r.owed >= 0
}

func (r *redis) class() (Class, bool) {
	return Class{state: r.state.sum + r.tx}, r.owed == 0 && r.sure()
}

func (r *redis) sure() bool { return len(r.buf) == 0 && r.skip == 0 }

func (r *redis) wrote(data []byte) bool {
	n := min(r.skip, len(data))
	data, r.skip = data[n:], r.skip-n
	if len(r.buf) > 0 {
		r.buf = append(r.buf, data...)
		data = r.buf
	}
	var c redisCommand
	for len(data) > 0 {
		need := c.parse(data)
		if need < 0 {
			return false
		}
		if need > 0 {
			break
		}
		if !r.command(&c, data[:c.size]) {
			return false
		}
		data = data[c.size:]
	}
	if len(data) < redisHead {
		r.buf = append(emptied(r.buf), data...)
		return true
	}
	// One with a large value at its end, which need not be seen.
	r.owed++
	r.fresh, r.sets = false, false
	r.skip, r.buf = c.size-len(data), emptied(r.buf)
	return r.skip > 0 && r.tx == 0 && neutralRedis(c.name())
}

// command learns what a command does to its session.
func (r *redis) command(c *redisCommand, text []byte) bool {
	name := c.name()
	part, ok := c.part()
	r.fresh, r.sets = name == "MULTI" && r.tx == 0 && r.owed == 0, ok && (r.sets || r.owed == 0)
	if name == "MULTI" && !r.multi {
		r.mixed = r.owed > 0
	}
	r.owed++
	switch name {
	case "MULTI", "WATCH":
		r.multi = r.multi || name == "MULTI"
		r.tx = chain(r.tx, text)
		return true
	case "EXEC", "DISCARD":
		if r.multi { // else they are errors
			r.multi, r.tx = false, 0
		}
		return true
	case "UNWATCH":
		if !r.multi {
			r.tx = 0
			return true
		}
		r.tx = chain(r.tx, text)
		return true
	}
	if neutralRedis(name) {
		if r.tx != 0 {
			r.tx = chain(r.tx, text)
		}
		return true
	}
	if !ok || r.multi {
		return false
	}
	if part == "" {
		return true
	}
	r.settings = append(r.settings, setting{r.told + r.owed, r.state.sum})
	return len(r.settings) <= settingsKept && r.state.set(part, text)
}

// neutralRedis reports whether a command leaves its session as it was. Those that do
// not are few and known; modules have none.
func neutralRedis(name string) bool {
	switch name {
	case "SELECT", "AUTH", "HELLO", "READONLY", "READWRITE", "CLIENT", "ASKING", "RESET", "QUIT", "MONITOR", "SYNC", "PSYNC",
		"REPLCONF", "SUBSCRIBE", "UNSUBSCRIBE", "PSUBSCRIBE", "PUNSUBSCRIBE", "SSUBSCRIBE", "SUNSUBSCRIBE",
		"MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH", "SCRIPT", "DEBUG", "FAILOVER", "SHUTDOWN":
		return false
	}
	return true
}

// redisCommand is the beginning of a command.
type redisCommand struct {
	args  [3][]byte
	count int // of all arguments
	size  int // of the whole, in bytes
}

// parse reads the command that data begins with. Need is 0 if it is whole, -1 if it is
// none. If only a part of the last argument is missing, size is known.
func (c *redisCommand) parse(data []byte) (need int) {
	*c = redisCommand{}
	rest := data
	if c.count, rest, need = redisNumber(rest, '*'); need != 0 {
		return need
	}
	if c.count < 1 {
		return -1
	}
	for i := range c.count {
		var n int
		if n, rest, need = redisNumber(rest, '$'); need != 0 {
			return need
		}
		if n < 0 {
			return -1
		}
		if n+2 > len(rest) {
			if i == c.count-1 {
				c.size = len(data) - len(rest) + n + 2
			}
			return 1
		}
		if i < len(c.args) {
			c.args[i] = rest[:n]
		}
		rest = rest[n+2:]
	}
	c.size = len(data) - len(rest)
	return 0
}

func (c *redisCommand) name() string { return strings.ToUpper(string(c.args[0])) }

// part names the piece of its session's state that the command sets, "" if it sets none
// that an answer depends on; not ok: it is not known what it does.
func (c *redisCommand) part() (name string, ok bool) {
	name = c.name()
	switch name {
	case "SELECT", "AUTH", "HELLO":
		return name, true
	case "READONLY", "READWRITE":
		return "READONLY", true
	case "CLIENT":
		switch sub := strings.ToUpper(string(c.args[1])); sub {
		case "SETNAME", "NO-EVICT", "NO-TOUCH":
			return name + " " + sub, true
		case "SETINFO", "MAINT_NOTIFICATIONS":
			// Libraries say the latter on as many sessions as they open before they have
			// been refused once. A server that grants it pushes, which no session survives.
			return "", true
		}
	}
	return "", false
}

// redisNumber reads a line that is a kind and a number. Need is 1 if it is not whole,
// -1 if it is another.
func redisNumber(data []byte, kind byte) (n int, rest []byte, need int) {
	if len(data) == 0 {
		return 0, nil, 1
	}
	line, rest, whole := bytes.Cut(data[:min(len(data), redisLine)], []byte("\r\n"))
	switch {
	case data[0] != kind || !whole && len(data) >= redisLine:
		return 0, nil, -1
	case !whole:
		return 0, nil, 1
	}
	n, err := strconv.Atoi(string(line[1:]))
	if err != nil || n > 512<<20 {
		return 0, nil, -1
	}
	return n, data[len(data[:min(len(data), redisLine)])-len(rest):], 0
}

// redisLine bounds a line with a number, in bytes.
const redisLine = 24

func (r *redis) whole(data []byte) int {
	var c redisCommand
	for rest := data; len(rest) > 0; rest = rest[c.size:] {
		if need := c.parse(rest); need < 0 {
			return -1
		} else if need > 0 {
			return 0
		}
	}
	return len(data)
}
