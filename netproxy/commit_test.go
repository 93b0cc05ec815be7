package netproxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/internal/vfs"
	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/order"
)

// TestWhatClientsHaveSurvives crashes the host, or the shim, before each operation
// of the journal on its disk, while clients are being served: each reply that a
// client had received by then must follow from what is found afterwards.
func TestWhatClientsHaveSurvives(t *testing.T) {
	for class, survivals := range map[journal.Durability][]vfs.Survival{
		journal.PageCache: {vfs.AllWritten},
		journal.Disk:      {vfs.SyncedOnly, vfs.SomeUnsynced},
	} {
		t.Run(class.String(), func(t *testing.T) {
			mem := vfs.NewMem()
			rng := rand.New(rand.NewPCG(1, 2))
			var got received
			dir := ""
			var mu sync.Mutex // guards rng
			var crashes atomic.Int64
			hook := func(op vfs.Op) error {
				if !op.Mutates() || !got.watching.Load() {
					return nil
				}
				crashes.Add(1)
				mu.Lock()
				defer mu.Unlock()
				for _, s := range survivals {
					had := got.copy() // before the clone: it may be less by then, never more
					if err := implied(mem.CrashClone(s, rng), class, dir, had); err != nil {
						t.Errorf("survival %d, before %s at %d: %v", s, op.Kind, op.Offset, err)
					}
				}
				return nil
			}
			r := newRigIn(t, order.Tracepoint, journal.Options{FS: vfs.NewFault(mem, hook), Durability: class, SegmentBytes: 32 << 10})
			dir = filepath.Join(r.dir, "journal")
			r.start()
			var wg sync.WaitGroup
			got.watching.Store(true)
			for i := range 4 {
				c := r.mustDial(nstest.App4)
				at := got.client(c.c.LocalAddr().String())
				wg.Go(func() {
					for range 100 {
						v, err := c.incr(fmt.Sprintf("key%d", i))
						if err != nil {
							t.Errorf("client %d: %v", i, err)
							return
						}
						at.Store(v)
					}
				})
			}
			wg.Wait()
			got.watching.Store(false)
			require.Greater(t, crashes.Load(), int64(60))
		})
	}
}

// received is the last reply that each client has, by its address.
type received struct {
	watching atomic.Bool
	mu       sync.Mutex
	by       map[string]*atomic.Int64
}

func (r *received) client(addr string) *atomic.Int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by == nil {
		r.by = map[string]*atomic.Int64{}
	}
	r.by[addr] = &atomic.Int64{}
	return r.by[addr]
}

func (r *received) copy() map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	had := map[string]int64{}
	for addr, n := range r.by {
		had[addr] = n.Load()
	}
	return had
}

// implied opens what a crash left: the n-th reply to a client implies n requests
// that the application took, and their output.
func implied(fs *vfs.MemFS, class journal.Durability, dir string, had map[string]int64) error {
	j, err := journal.Open(journal.Options{Dir: dir, FS: fs, Durability: class, SegmentBytes: 32 << 10})
	if err != nil {
		return err
	}
	rd, err := j.NewReader(j.Start())
	if err != nil {
		return err
	}
	type state struct{ input, taken, output uint64 }
	client, conns := map[uint32]netip.AddrPort{}, map[string]*state{}
	var rec journal.Record
	for err = rd.Next(&rec); err == nil; err = rd.Next(&rec) {
		if rec.Type == journal.TypeOpen {
			client[rec.Conn] = rec.Open.Client
			conns[rec.Open.Client.String()] = &state{}
		}
		s := conns[client[rec.Conn].String()]
		switch rec.Type {
		case journal.TypeInput:
			s.input = rec.Offset + uint64(len(rec.Payload))
		case journal.TypeConsumed:
			s.taken = rec.Offset
		case journal.TypeOutput:
			s.output = rec.Offset + uint64(rec.Length)
		}
	}
	const request = uint64(len("INCR key0\r\n"))
	for addr, n := range had {
		replies := uint64(0)
		for v := range n {
			replies += uint64(len(fmt.Sprintf(":%d\r\n", v+1)))
		}
		s := conns[addr]
		if n > 0 && (s == nil || s.input < uint64(n)*request || s.taken < uint64(n)*request || s.output < replies) {
			return fmt.Errorf("client %s has %d replies (%d bytes), the journal %+v", addr, n, replies, s)
		}
	}
	return nil
}
