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
	// refused: the answer is an error.
	refused bool
}

// replyDepth bounds how deeply answers are nested, replyLine the length of one line, in
// bytes.
const (
	replyDepth = 16
	replyLine  = 64 << 10
)

// read tells of each answer that ends in data, and whether it is an error; false: data is
// something else, or the one who is told says so.
func (r *replies) read(data []byte, tell func(refused bool) bool) bool {
	for len(data) > 0 {
		if r.skip > 0 {
			k := min(r.skip, len(data))
			data, r.skip = data[k:], r.skip-k
			if r.skip == 0 && r.ended() && !tell(r.refused) {
				return false
			}
			continue
		}
		line, rest, whole := bytes.Cut(data, []byte("\n"))
		if r.line = append(r.line, line...); len(r.line) > replyLine {
			return false
		}
		if !whole {
			return true
		}
		data = rest
		ended, ok := r.take(bytes.TrimSuffix(r.line, []byte("\r")))
		r.line = emptied(r.line)
		if !ok || ended && !tell(r.refused) {
			return false
		}
	}
	return true
}

// take takes a line, and reports whether an answer ends with it.
func (r *replies) take(line []byte) (ended, ok bool) {
	if len(line) == 0 {
		return false, false
	}
	if len(r.need) == 0 {
		r.refused = line[0] == '-' || line[0] == '!'
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
