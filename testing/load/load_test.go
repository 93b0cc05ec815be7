package load

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// server counts like Redis, and misbehaves on request.
type server struct {
	l     net.Listener
	mu    sync.Mutex
	keys  map[string]int64
	incrs int
	// fault may change a reply, return "" to cut the connection, or wait. It
	// is called with mu held, n counts the increments so far.
	fault func(s *server, n int, key string, reply string) string
}

func startServer(t *testing.T, fault func(*server, int, string, string) string) *server {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &server{l: l, keys: map[string]int64{}, fault: fault}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s
}

func (s *server) addr() netip.AddrPort { return netip.MustParseAddrPort(s.l.Addr().String()) }

func (s *server) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		var words []string
		for range 5 {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			words = append(words, strings.TrimSpace(line))
		}
		reply := s.answer(words[2], words[4])
		if reply == "" {
			return
		}
		if _, err := io.WriteString(c, reply); err != nil {
			return
		}
	}
}

func (s *server) answer(command, key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if command == "GET" {
		v := fmt.Sprint(s.keys[key])
		return fmt.Sprintf("$%d\r\n%s\r\n", len(v), v)
	}
	s.keys[key]++
	s.incrs++
	reply := fmt.Sprintf(":%d\r\n", s.keys[key])
	if s.fault != nil {
		reply = s.fault(s, s.incrs, key, reply)
	}
	return reply
}

// awaitFault waits until a server with a fault has shown it, if that is at one of
// its first requests.
func (s *server) awaitFault(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.fault == nil || s.incrs > 1500
	}, time.Minute, time.Millisecond)
}

func drive(t *testing.T, s *server, o Options, d time.Duration) Result {
	t.Helper()
	o.Target = s.addr()
	l, err := Start(context.Background(), o)
	require.NoError(t, err)
	time.Sleep(d)
	s.awaitFault(t)
	r, err := l.Stop(context.Background())
	require.NoError(t, err)
	return r
}

func TestCleanRun(t *testing.T) {
	for name, o := range map[string]Options{
		"plain":     {Connections: 20},
		"pipelined": {Connections: 5, Pipeline: 16},
		"reconnect": {Connections: 10, ReconnectEvery: 10},
		"light":     {Connections: 4, Rate: 200},
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			r := drive(t, startServer(t, nil), o, 500*time.Millisecond)
			took := time.Since(begun)
			assert.True(t, r.Clean(), "%+v", r)
			assert.Positive(t, r.Requests)
			assert.Equal(t, r.Acknowledged, r.Stored)
			assert.Len(t, r.LongestMS, o.Connections)
			if o.Rate > 0 {
				assert.Less(t, float64(r.Requests), 1.5*float64(o.Rate)*took.Seconds()+float64(o.Connections))
			}
		})
	}
}

func TestFaultsAreSeen(t *testing.T) {
	once := func(f func(s *server, key, reply string) string) func(*server, int, string, string) string {
		return func(s *server, n int, key, reply string) string {
			if n == 500 {
				return f(s, key, reply)
			}
			return reply
		}
	}
	isShared := func(key string) bool { return strings.HasSuffix(key, ":shared") }
	for name, tc := range map[string]struct {
		fault func(*server, int, string, string) string
		check func(*testing.T, Result)
	}{
		"lost": {once(func(s *server, key, reply string) string { s.keys[key]--; return reply }),
			func(t *testing.T, r Result) { assert.EqualValues(t, 1, r.Lost); assert.Positive(t, r.WrongReplies) }},
		"doubled": {once(func(s *server, key, reply string) string { s.keys[key]++; return reply }),
			func(t *testing.T, r Result) { assert.EqualValues(t, 1, r.Doubled) }},
		"state gone": {once(func(s *server, _, reply string) string { clear(s.keys); return reply }),
			func(t *testing.T, r Result) {
				assert.Greater(t, r.Lost, int64(100))
				assert.Positive(t, r.WrongReplies)
			}},
		"a connection cut": {once(func(*server, string, string) string { return "" }),
			func(t *testing.T, r Result) {
				assert.EqualValues(t, 1, r.ClientErrors)
				assert.EqualValues(t, 1, r.Uncertain)
				assert.Zero(t, r.Lost+r.Doubled+r.WrongReplies, "an uncertain request is neither")
			}},
		"shared replies exchanged": {func(s *server, n int, key, reply string) string {
			if n > 500 && isShared(key) && n%2 == 0 {
				return fmt.Sprintf(":%d\r\n", s.keys[key]-1)
			}
			return reply
		}, func(t *testing.T, r Result) { assert.Positive(t, r.WrongReplies) }},
		"error reply": {once(func(*server, string, string) string { return "-LOADING\r\n" }),
			func(t *testing.T, r Result) { assert.EqualValues(t, 1, r.ClientErrors) }},
	} {
		t.Run(name, func(t *testing.T) {
			r := drive(t, startServer(t, tc.fault), Options{Connections: 5}, 500*time.Millisecond)
			assert.False(t, r.Clean())
			tc.check(t, r)
			if r.ClientErrors > 0 {
				assert.NotEmpty(t, r.Errors)
			}
		})
	}
}

func TestStallIsFoundInItsWindow(t *testing.T) {
	const stall = 300 * time.Millisecond
	s := startServer(t, func(_ *server, n int, _, reply string) string {
		if n == 1000 {
			time.Sleep(stall)
		}
		return reply
	})
	l, err := Start(context.Background(), Options{Connections: 4, Target: s.addr()})
	require.NoError(t, err)
	start := time.Now()
	for {
		if n, _ := l.Progress(); n > 1100 {
			break
		}
		require.Less(t, time.Since(start), time.Minute)
		time.Sleep(time.Millisecond)
	}
	after := time.Now().Add(2 * windowWidth)
	time.Sleep(200 * time.Millisecond)
	assert.GreaterOrEqual(t, l.LongestBetween(start, after), stall)
	for tries := 0; l.LongestBetween(after, time.Now()) >= stall; tries++ { // a busy machine has stalls of its own
		require.Less(t, tries, 100)
		after = time.Now().Add(2 * windowWidth)
		time.Sleep(200 * time.Millisecond)
	}
	r, err := l.Stop(context.Background())
	require.NoError(t, err)
	assert.GreaterOrEqual(t, r.LongestMS[0], 150.0, "every client waited, if not from the beginning")
}

func TestServerThatHangsIsAnError(t *testing.T) {
	hang := make(chan struct{})
	s := startServer(t, func(_ *server, n int, _, reply string) string {
		if n == 100 {
			<-hang
		}
		return reply
	})
	l, err := Start(context.Background(), Options{Connections: 2, Target: s.addr(), Timeout: 200 * time.Millisecond})
	require.NoError(t, err)
	require.Eventually(t, func() bool { _, errs := l.Progress(); return errs >= 2 }, time.Minute, time.Millisecond)
	_, err = l.Stop(context.Background())
	assert.ErrorContains(t, err, "read the keys back")
	close(hang)
}

func TestHistogramIsPrecise(t *testing.T) {
	var h histogram
	rng := rand.New(rand.NewPCG(1, 1))
	for range 10000 {
		h.add(time.Duration(rng.Int64N(int64(time.Second))))
	}
	assert.InEpsilon(t, float64(500*time.Millisecond), float64(h.quantile(0.5)), 0.08)
	for _, v := range []uint64{0, 1, 31, 32, 63, 64, 65, 1000, 1 << 20, 1<<40 + 12345} {
		low := edge(bucket(v))
		assert.LessOrEqual(t, low, v)
		assert.LessOrEqual(t, float64(v-low), float64(v)/subBuckets)
	}
}

func FuzzReadInteger(f *testing.F) {
	f.Add([]byte(":12\r\n"))
	f.Add([]byte("-ERR x\r\n"))
	f.Add([]byte(":\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := readInteger(bufio.NewReader(strings.NewReader(string(data))))
		if err == nil && n < 0 {
			t.Fatalf("%q is read as %d", data, n)
		}
		if _, err := readBulkInteger(bufio.NewReader(strings.NewReader(string(data)))); err == nil && len(data) < 4 {
			t.Fatalf("%q is a bulk string", data)
		}
	})
}
