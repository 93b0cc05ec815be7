package session

import (
	"bytes"
	"strconv"
)

// replies counts the answers of a Redis.
type replies struct {
	line []byte // the beginning of a line
	skip int    // bytes of a bulk string that are to come
	need []int  // elements that are to come, of each aggregate around the present one
}

// replyDepth bounds how deeply answers are nested, replyLine the length of one line, in
// bytes.
const (
	replyDepth = 16
	replyLine  = 64 << 10
)

// read returns how many answers end in data; not ok: it is something else.
func (r *replies) read(data []byte) (n int, ok bool) {
	for len(data) > 0 {
		if r.skip > 0 {
			k := min(r.skip, len(data))
			data, r.skip = data[k:], r.skip-k
			if r.skip == 0 && r.ended() {
				n++
			}
			continue
		}
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if r.line = append(r.line, line...); len(r.line) > replyLine {
			return n, false
		}
		if !whole {
			return n, true
		}
		data = rest
		ended, ok := r.take(bytes.TrimSuffix(r.line, []byte("\r")))
		r.line = emptied(r.line)
		if !ok {
			return n, false
		}
		if ended {
			n++
		}
	}
	return n, true
}

// take takes a line, and reports whether an answer ends with it.
func (r *replies) take(line []byte) (ended, ok bool) {
	if len(line) == 0 {
		return false, false
	}
	switch line[0] {
	case '+', '-', ':', '_', ',', '#', '(':
		return r.ended(), true
	}
	size, err := strconv.Atoi(string(line[1:]))
	if err != nil || size > 512<<20 {
		return false, false
	}
	switch line[0] {
	case '$', '!', '=':
		if size < 0 {
			return r.ended(), true
		}
		r.skip = size + 2
		return false, true
	case '%':
		size *= 2
	case '*', '~':
	default:
		return false, false // what is said without having been asked
	}
	if size <= 0 {
		return r.ended(), true
	}
	r.need = append(r.need, size)
	return false, len(r.need) <= replyDepth
}

// ended takes the end of an element, and reports whether it was that of an answer.
func (r *replies) ended() bool {
	for n := len(r.need); n > 0; n-- {
		if r.need[n-1]--; r.need[n-1] > 0 {
			return false
		}
		r.need = r.need[:n-1]
	}
	return true
}
