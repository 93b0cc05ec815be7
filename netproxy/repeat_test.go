package netproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
)

// asker is an application that asks a bank by itself: nothing that enters the
// container makes it.
type asker struct {
	*teller
	tr *http.Transport
}

func (r *rig) asker() *asker {
	a := &asker{teller: r.teller(func(_ *teller, c *net.TCPConn) { c.Close() })}
	a.tr = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return a.dial(netip.AddrPortFrom(nstest.Client4, bankPort))
	}}
	return a
}

// ask returns what the bank says to a request, or the error.
func (a *asker) ask(path string) string {
	ctx, cancel := context.WithTimeout(a.ctx, soon)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://bank/"+path, strings.NewReader("please"))
	if err != nil {
		return err.Error()
	}
	res, err := a.tr.RoundTrip(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return string(said)
}

// nextLife replays all that was recorded to an application that begins anew.
func (r *rig) nextLife(a *asker) *asker {
	r.t.Helper()
	r.again(a.stop)
	a = r.asker()
	begun := time.Now()
	res, err := r.proxy.Replay(context.Background(), false)
	require.NoError(r.t, err)
	r.t.Logf("%+v in %v", res, time.Since(begun))
	require.Less(r.t, time.Since(begun), StallAfter/2)
	require.Zero(r.t, res.Differing)
	require.Zero(r.t, res.Reset)
	return a
}

// TestRepeatedAfterTheReplay: what the application asks a server for by a timer of
// its own comes again after the replay. It is answered as it was, and the server
// is not asked twice, however often there is a crash. That all requests are the
// same does not mix them up.
func TestRepeatedAfterTheReplay(t *testing.T) {
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			r := newEgressRig(t, kind)
			b := r.webBank()
			a := r.asker()
			var said []string
			for life := range 3 {
				for i, was := range said {
					require.Equal(t, was, a.ask("beat"), "life %d, beat %d", life, i)
				}
				require.EqualValues(t, len(said), b.charged.Load())
				for range 3 {
					said = append(said, a.ask("beat"))
					require.Equal(t, fmt.Sprintf("charge beat %d", len(said)), said[len(said)-1])
				}
				a = r.nextLife(a)
			}
		})
	}
}

// TestRepeatedUnderWay: the crash comes before the server has answered a request,
// in the midst of the answer, or behind one whose end is that of the connection; the
// application makes the request again after the replay.
func TestRepeatedUnderWay(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"
	for what, test := range map[string]struct {
		before, after string // the crash
		end           bool   // the server closes before the crash
	}{
		"nothing":               {"", head + "answer", false},
		"a part of the answer":  {head + "ans", "wer", false},
		"all of it":             {head + "answer", "", false},
		"all of it, and closed": {"HTTP/1.1 200 OK\r\n\r\nanswer", "", true},
	} {
		for name, kind := range kinds {
			t.Run(name+" "+what, func(t *testing.T) {
				r := newEgressRig(t, kind)
				var asked atomic.Int64
				said, goOn := make(chan struct{}), make(chan struct{})
				r.listenIn(r.client, bankPort, func(c *net.TCPConn) {
					defer c.Close()
					for n := 1; ; n++ {
						if _, err := readRequest(c); err != nil {
							return
						}
						if asked.Add(1) == 1 { // the server is known to speak HTTP/1
							_, _ = io.WriteString(c, head+"first.")
							continue
						}
						_, _ = io.WriteString(c, test.before)
						if test.end {
							c.Close()
						}
						said <- struct{}{}
						<-goOn
						_, _ = io.WriteString(c, test.after)
					}
				})
				defer sync.OnceFunc(func() { close(goOn) })()
				a := r.asker()
				require.Equal(t, "first.", a.ask("first"))
				lost := make(chan string, 1)
				go func() { lost <- a.ask("second") }()
				<-said
				a = r.nextLife(a)
				<-lost
				require.Equal(t, "first.", a.ask("first"))
				got := make(chan string, 1)
				go func() { got <- a.ask("second") }()
				if test.after != "" {
					goOn <- struct{}{}
				}
				require.Equal(t, "answer", <-got)
				require.EqualValues(t, 2, asked.Load())
				a = r.nextLife(a)
				require.Equal(t, "first.", a.ask("first"))
				require.Equal(t, "answer", a.ask("second"))
				require.EqualValues(t, 2, asked.Load())
			})
		}
	}
}

// TestAnswerThatIsNotTaken: the server has given a long answer and ended the connection, and
// the application takes little of that until the replay is over. It gets all of it.
func TestAnswerThatIsNotTaken(t *testing.T) {
	r := newEgressRig(t, order.Auto)
	body := strings.Repeat("0123456789abcdef", 1<<20/16)
	answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n", len(body)) + body
	var asked atomic.Int64
	r.listenIn(r.client, bankPort, func(c *net.TCPConn) {
		defer c.Close()
		if _, err := readRequest(c); err == nil {
			asked.Add(1)
			_, _ = io.WriteString(c, answer)
		}
	})
	idle := func(_ *teller, c *net.TCPConn) { c.Close() }
	ask := func(a *teller, buffer int) (*net.TCPConn, error) {
		c, err := a.dial(netip.AddrPortFrom(nstest.Client4, bankPort))
		if err != nil {
			return nil, err
		}
		_, err = io.WriteString(c, "POST /long HTTP/1.1\r\nHost: bank\r\nContent-Length: 6\r\n\r\nplease")
		return c, errors.Join(err, c.SetReadBuffer(buffer))
	}
	a := r.teller(idle)
	_, err := ask(a, 1<<20)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return r.proxy.Stats().InBytes == uint64(len(answer)) }, soon, time.Millisecond)
	r.again(a.stop)
	a = r.teller(idle)
	var c *net.TCPConn
	again := make(chan error, 1)
	go func() {
		var err error
		c, err = ask(a, 4<<10)
		again <- err
	}()
	r.awaitOpening()
	res, err := r.proxy.Replay(context.Background(), false)
	require.NoError(t, err)
	require.Zero(t, res.Reset)
	require.Less(t, res.Bytes, int64(len(answer)), "the application's buffers have held all of it")
	require.NoError(t, <-again)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(soon)))
	got, err := io.ReadAll(c)
	require.NoError(t, err)
	require.True(t, string(got) == answer, "%d of %d bytes", len(got), len(answer))
	require.EqualValues(t, 1, asked.Load())
	a.stop()
}

// TestRepeatedOutOfTurn: a recorded request that stands behind another one, to which the
// server owes an answer, is not answered before that, and does not reach the server again:
// the application makes it on another connection.
func TestRepeatedOutOfTurn(t *testing.T) {
	request := func(path string) string {
		return "POST /" + path + " HTTP/1.1\r\nHost: bank\r\nContent-Length: 6\r\n\r\nplease"
	}
	slow, quick, beat := request("slow"), request("quick"), request("beat")
	type step struct {
		text  string
		asked int64 // how many requests the server has then, but for recorded ones
		reads bool  // an answer
	}
	for what, test := range map[string]struct {
		steps []step
		ends  bool
	}{
		"at once":            {[]step{{slow + beat, 0, false}}, true},
		"before the answer":  {[]step{{slow, 1, false}, {beat, 1, false}}, true},
		"behind two":         {[]step{{quick + slow, 2, true}, {beat, 2, false}}, true},
		"behind what is cut": {[]step{{quick + slow[:20], 1, true}, {slow[20:], 2, false}, {beat, 2, false}}, true},
		"in its turn":        {[]step{{quick, 1, true}, {beat, 1, true}}, false},
		"behind pieces":      {[]step{{quick[:30], 0, false}, {quick[30:], 1, true}, {beat, 1, true}}, false},
	} {
		t.Run(what, func(t *testing.T) {
			r := newEgressRig(t, order.Auto)
			var beats, asked atomic.Int64
			goOn := make(chan struct{})
			r.listenIn(r.client, bankPort, func(c *net.TCPConn) {
				defer c.Close()
				for {
					text, err := readRequest(c)
					if err != nil {
						return
					}
					switch {
					case strings.Contains(text, "/beat"):
						beats.Add(1)
					case asked.Add(1) > 0 && strings.Contains(text, "/slow"):
						<-goOn
					}
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer")
				}
			})
			defer close(goOn)
			a := r.asker()
			dial := func() *net.TCPConn {
				c, err := a.dial(netip.AddrPortFrom(nstest.Client4, bankPort))
				require.NoError(t, err)
				require.NoError(t, c.SetDeadline(time.Now().Add(soon)))
				return c
			}
			say := func(c net.Conn, text string) {
				_, err := io.WriteString(c, text)
				require.NoError(t, err)
			}
			answered := func(c net.Conn) {
				b := make([]byte, len("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer"))
				_, err := io.ReadFull(c, b)
				require.NoError(t, err)
			}
			c := dial()
			say(c, beat)
			answered(c)
			a = r.nextLife(a)
			c = dial()
			for _, k := range test.steps {
				say(c, k.text)
				require.Eventually(t, func() bool { return asked.Load() >= k.asked }, soon, time.Millisecond)
				if k.reads {
					answered(c)
				}
			}
			if test.ends {
				_, err := io.Copy(io.Discard, c)
				require.ErrorIs(t, err, syscall.ECONNRESET, "%d requests asked, %d recorded ones", asked.Load(), beats.Load())
				c = dial()
				say(c, beat)
				answered(c)
			}
			require.EqualValues(t, 1, beats.Load())
			a.stop()
		})
	}
}

// TestBeginningOfARequest: what may be the beginning of a recorded request, and is
// none, reaches the server, also if the application ends its stream behind it.
func TestBeginningOfARequest(t *testing.T) {
	r := newEgressRig(t, order.Auto)
	said := make(chan string, 1)
	r.listenIn(r.client, bankPort, func(c *net.TCPConn) {
		defer c.Close()
		b := make([]byte, 4096)
		n, err := io.ReadAtLeast(c, b, 2)
		if err == nil && strings.HasPrefix(string(b[:n]), "POST") {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer")
			return
		}
		rest, _ := io.ReadAll(c)
		said <- string(b[:n]) + string(rest)
	})
	a := r.asker()
	require.Equal(t, "answer", a.ask("beat"))
	a = r.nextLife(a)
	c, err := a.dial(netip.AddrPortFrom(nstest.Client4, bankPort))
	require.NoError(t, err)
	_, err = io.WriteString(c, "PO")
	require.NoError(t, err)
	require.NoError(t, c.CloseWrite())
	select {
	case got := <-said:
		require.Equal(t, "PO", got)
	case <-time.After(soon):
		t.Fatal("the server was told nothing")
	}
	a.stop()
}

// TestLongRequestIsLetGo: a request that was kept back goes on while a checkpoint is
// made, and the journal takes it though it is longer than a record may be.
func TestLongRequestIsLetGo(t *testing.T) {
	r := newEgressRig(t, order.Auto)
	got := make(chan int64, 1)
	r.listenIn(r.client, bankPort, func(c *net.TCPConn) {
		defer c.Close()
		n, _ := io.Copy(io.Discard, c)
		got <- n
	})
	a := r.asker()
	c, err := a.dial(netip.AddrPortFrom(nstest.Client4, bankPort))
	require.NoError(t, err)
	_, err = io.WriteString(c, "x")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return r.proxy.Stats().OutBytes == 1 }, soon, time.Millisecond)
	require.NoError(t, r.proxy.do(context.Background(), "let go", func() error {
		for _, c := range r.proxy.conns {
			c.asked = make([]byte, requestLimit)
			r.proxy.rawOutput = true
			r.proxy.send(c, c.passAsked())
			r.proxy.rawOutput = false
		}
		return nil
	}))
	require.NoError(t, c.CloseWrite())
	select {
	case n := <-got:
		require.EqualValues(t, requestLimit+1, n)
	case <-time.After(soon):
		t.Fatal("the server was not told all")
	}
	a.stop()
}

// readRequest reads one that asker has made.
func readRequest(c net.Conn) (string, error) {
	var b []byte
	for one := make([]byte, 1); !strings.HasSuffix(string(b), "please"); b = append(b, one...) {
		if _, err := c.Read(one); err != nil {
			return "", err
		}
	}
	return string(b), nil
}
