package netproxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
)

func TestFingerprint(t *testing.T) {
	const d1, d2 = "Sun, 22 Nov 2026 07:10:00 GMT", "Mon, 23 Nov 2026 00:00:01 GMT"
	answer := func(date, more string) string {
		return "HTTP/1.1 200 OK\r\nServer: x\r\nDate: " + date + "\r\nContent-Length: 2\r\n\r\nok" + more
	}
	same := func(a, b string, want bool) {
		t.Helper()
		require.Equal(t, want, fingerprint([]byte(a)) == fingerprint([]byte(b)), "%q\n%q", a, b)
		require.Equal(t, want, sameUndated([]byte(a), []byte(b)) && isAnswer([]byte(a)) || a == b, "%q\n%q", a, b)
	}
	same(answer(d1, ""), answer(d2, ""), true)
	same(strings.ToLower(answer(d1, ""))+"x", strings.ToLower(answer(d1, ""))+"y", false)
	same(answer(d1, answer(d1, "")), answer(d2, answer(d1, "")), true) // two at a time
	same(answer(d1, ""), answer(d2, "x"), false)
	same(answer(d1, "x"), answer(d2, "y"), false)
	same(answer("Sun, 22 Nov 2026 07:10:00 CET", ""), answer("Sun, 22 Nov 2026 07:10:01 CET", ""), false)
	same(strings.Replace(answer(d1, ""), "Date", "Update", 1), strings.Replace(answer(d2, ""), "Date", "Update", 1), false)
	same("Date: "+d1, "Date: "+d2, false)
	plain := []byte("+OK\r\nDate: " + d1 + "\r\n")
	require.Equal(t, xxhash.Sum64(plain), fingerprint(plain), "no answer of HTTP")
	require.Len(t, dateForm, len(http.TimeFormat))
}

// TestDates: an HTTP server is recovered though it writes another time of day the
// second time.
func TestDates(t *testing.T) {
	forEachOrder(t, func(t *testing.T, r *rig) {
		answer := func(second int, body string) string {
			return fmt.Sprintf("HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 07:10:%02d GMT\r\nContent-Length: %d\r\n\r\n%s", second, len(body), body)
		}
		stop := r.serve(7, answer(1, "same"))
		c, err := r.dial(nstest.App4, 7)
		require.NoError(t, err)
		defer c.Close()
		in := bufio.NewReader(c)
		ask := func(want int) {
			t.Helper()
			require.NoError(t, c.SetDeadline(time.Now().Add(soon)))
			_, err := io.WriteString(c, "x")
			require.NoError(t, err)
			res, err := http.ReadResponse(in, nil)
			require.NoError(t, err)
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.Equal(t, "same", string(body))
			require.Contains(t, res.Header.Get("Date"), fmt.Sprintf(":%02d GMT", want))
		}
		ask(1)
		ask(1)
		r.again(stop)
		stop = r.serve(7, answer(2, "same"))
		defer func() { stop() }()
		res, err := r.proxy.Replay(context.Background(), false)
		require.NoError(t, err)
		require.Zero(t, res.Differing)
		require.Zero(t, res.Reset)
		ask(2)
		r.again(stop)
		stop = r.serve(7, answer(3, "else"))
		_, err = r.proxy.Replay(context.Background(), false)
		require.ErrorIs(t, err, ErrDiverged, "but not if it says something else")
	})
}
