package netproxy

import (
	"bufio"
	"bytes"
	"io"
	"net/http"

	"github.com/crsc-io/crsc/netproxy/replay"
	"github.com/crsc-io/crsc/netproxy/session"
)

// exchange is a recorded request to a server with what was answered, during a
// replay.
type exchange struct {
	replay.Exchange
	conn *conn // on which it was made
	last bool  // of its connection
	// leg is where the application made it in this replay; nil: not yet.
	leg    *conn
	method string
	// before and after are the classes of the session, if the server has such.
	before, after session.Class
	prepares      bool // it only prepares the session for what comes
	begins        bool // it only begins a transaction
	within        bool // a transaction is open before it
	inside        bool // and after it
	undone        bool // that one was never committed, and ends with the connection
	// end is InTo, or that of the questions after it that are set aside; probed is one
	// of them that the server has not answered (setProbesAside).
	end    uint64
	probed *exchange
	// allowed and fed are input offsets of conn: up to which the answer may be
	// delivered, and was. shift added to one gives that of the leg.
	allowed, fed, shift uint64
	due                 bool // on the list of those that can't be delivered yet

	// After a replay (repeats): what was recorded of the answer, and whether the
	// server had ended the connection with it.
	answer      []byte
	serverEnded bool
}

func (x *exchange) seq() int {
	if len(x.Outputs) == 0 {
		return 0
	}
	return x.Outputs[0].Seq
}

// current reports that the leg has not gone on to another request.
func (x *exchange) current() bool {
	return x.leg != nil && !x.leg.gone && x.leg.virtual != nil && x.leg.virtual.cur == x
}

// madeBy reports whether data, of which n bytes are a request, is the recorded
// request, or begins with it if the crash came in the midst of it.
func (x *exchange) madeBy(data []byte, n int) bool {
	size := x.Length()
	if size == 0 || size > uint64(n) || size < uint64(n) && !(x.last && x.InFrom == x.InTo) {
		return false
	}
	for i := range x.Outputs {
		e := &x.Outputs[i]
		if !equals(e, data[:e.Length]) {
			return false
		}
		data = data[e.Length:]
	}
	return true
}

func equals(e *replay.Output, data []byte) bool {
	if e.Bytes != nil {
		return string(e.Bytes) == string(data)
	}
	return fingerprint(data) == e.Hash
}

// requestLimit bounds a request that is compared as a whole, in bytes.
const requestLimit = 4 << 20

// requestLen is the length of the HTTP/1 request that data begins with: 0 if it
// takes more bytes to know, -1 if it is no such thing.
func requestLen(data []byte) int {
	if !standalone(data) {
		if len(data) < peekSize && !bytes.Contains(data, []byte("\n")) {
			return 0
		}
		return -1
	}
	from := bytes.NewReader(data)
	r := bufio.NewReader(from)
	req, err := http.ReadRequest(r)
	if err == nil {
		_, err = io.Copy(io.Discard, req.Body)
	}
	switch {
	case err == nil:
		return len(data) - from.Len() - r.Buffered()
	case err == io.ErrUnexpectedEOF && len(data) < requestLimit: //nolint:errorlint // what net/http documents
		return 0
	}
	return -1
}

// recorded is what the journal has of the answer.
func (x *exchange) recorded(plan *replay.Plan) []byte {
	return plan.Conns[x.conn.id].Slice(x.InFrom, x.InTo)
}

// answered reports whether an answer to the request needs nothing after it.
func (x *exchange) answered(answer []byte) bool {
	if x.conn.session != nil {
		return !x.last || x.conn.session.Resting()
	}
	if len(x.Outputs) == 0 {
		return true // the connection was at rest, or the answer can't be told from its end
	}
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), &http.Request{Method: x.method})
	if err != nil {
		return false
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err == nil && (res.ContentLength >= 0 || len(res.TransferEncoding) > 0)
}
