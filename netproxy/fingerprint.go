package netproxy

import (
	"bytes"

	"github.com/cespare/xxhash/v2"
)

// Nearly every HTTP/1 server writes the time of day into its answers, which can
// not come out the same a second time. In what begins as such an answer the
// values of Date headers (RFC 9110, 6.6.1) therefore count as equal. A client gets
// the one that was sent to it, or, if that was none yet, the new one.
//
// Not so in HTTP/2: HPACK (RFC 7541) gives another date another length, and what was
// sent goes into a table of which the client has a copy, so that headers compressed
// with the table of a second life would be other headers to it.

const (
	httpAnswer = "HTTP/1."
	dateName   = "ate: " // behind a D or a d
	dateForm   = "Sun, 06 Nov 1994 08:49:37 GMT"
)

// fingerprint is the hash of a stretch of output.
func fingerprint(data []byte) uint64 {
	if !isAnswer(data) {
		return xxhash.Sum64(data)
	}
	var d xxhash.Digest
	d.Reset()
	writeUndated(&d, data)
	return d.Sum64()
}

func isAnswer(data []byte) bool {
	return len(data) > len(httpAnswer) && string(data[:len(httpAnswer)]) == httpAnswer
}

// writeUndated adds data to a digest, with one date in place of all others.
func writeUndated(d *xxhash.Digest, data []byte) {
	for {
		at := dateIn(data)
		if at < 0 {
			_, _ = d.Write(data)
			return
		}
		_, _ = d.Write(data[:at])
		_, _ = d.WriteString(dateForm)
		data = data[at+len(dateForm):]
	}
}

// sameUndated reports whether two stretches are the same but for dates.
func sameUndated(a, b []byte) bool {
	for {
		i := dateIn(a)
		if i < 0 || i != dateIn(b) {
			return bytes.Equal(a, b)
		}
		if !bytes.Equal(a[:i], b[:i]) {
			return false
		}
		a, b = a[i+len(dateForm):], b[i+len(dateForm):]
	}
}

// dateIn returns where the first value of a Date header begins, or -1.
func dateIn(data []byte) int {
	for from := 0; ; {
		i := bytes.Index(data[from:], []byte(dateName))
		if i < 0 {
			return -1
		}
		name := from + i
		from = name + len(dateName)
		if isDate(data, name, from) {
			return from
		}
	}
}

// isDate reports whether a header's line goes on at name, after its first letter,
// and has a date as its value.
func isDate(data []byte, name, value int) bool {
	end := value + len(dateForm)
	if name < 3 || end+2 > len(data) || data[name-1]|0x20 != 'd' || data[name-2] != '\n' {
		return false
	}
	return data[value+3] == ',' && string(data[end-4:end+2]) == " GMT\r\n"
}
