package netproxy

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy/nfqueue"
	"github.com/crsc-io/crsc/netproxy/replay"
)

// FuzzRequest: what an application writes is cut into requests in one way, however
// much of it is there, and a recorded request is that one.
func FuzzRequest(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"), 5)
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\nrest"), 40)
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 4)
	f.Fuzz(func(t *testing.T, data []byte, part int) {
		n := requestLen(data)
		require.LessOrEqual(t, n, len(data))
		if n <= 0 {
			return
		}
		require.Equal(t, n, requestLen(data[:n]), "what follows makes it another")
		if part > 0 && part < n {
			require.LessOrEqual(t, requestLen(data[:part]), 0, "a part of it is whole")
		}
		x := &exchange{}
		x.Outputs = []replay.Output{{Length: uint32(n), Hash: fingerprint(data[:n])}}
		require.True(t, x.madeBy(data, n))
		other := bytes.Clone(data[:n])
		other[n-1]++
		require.False(t, x.madeBy(other, n))
	})
}

// FuzzUndated: two answers that count as equal but for their dates have one
// fingerprint, in whatever pieces it is made.
func FuzzUndated(f *testing.F) {
	a := "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nX: y\r\n\r\n"
	b := "HTTP/1.1 200 OK\r\nDate: Mon, 07 Nov 1994 08:49:38 GMT\r\nX: y\r\n\r\n"
	f.Add([]byte(a), []byte(b))
	f.Add([]byte("HTTP/1.1 \nDate: Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), []byte(a))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		require.True(t, sameUndated(a, a))
		if !isAnswer(a) || !isAnswer(b) {
			return
		}
		require.Equal(t, sameUndated(a, b), sameUndated(b, a))
		require.Equal(t, sameUndated(a, b), fingerprint(a) == fingerprint(b))
	})
}

// FuzzSYN: the packets that the application sends may be anything.
func FuzzSYN(f *testing.F) {
	four := make([]byte, 40)
	four[0], four[9] = 0x45, 6
	binary.BigEndian.PutUint16(four[2:], 40)
	six := make([]byte, 60)
	six[0], six[6] = 0x60, 6
	f.Add(four)
	f.Add(six)
	f.Add([]byte{0x4f})
	f.Fuzz(func(t *testing.T, packet []byte) {
		if s, ok := parseSYN(&nfqueue.Packet{ID: 1, Payload: packet}); ok {
			require.Equal(t, packet, s.packet)
			require.True(t, s.client.IsValid() && s.server.IsValid())
		}
	})
}
