package egress

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/crsc-io/crsc/netproxy/netns"
)

const bankPort = 8080

// Bank is a server that counts what it is charged, for each path.
type Bank struct {
	server http.Server
	wg     sync.WaitGroup

	mu      sync.Mutex // guards all below
	charges map[string]int
	total   int
	opened  int // connections
}

// OpenBank serves in the network namespace at path, on one of its addresses.
func OpenBank(path string, addr netip.Addr) (*Bank, error) {
	b := &Bank{charges: map[string]int{}}
	ns, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	var l net.Listener
	err = netns.Do(int(ns.Fd()), func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", Target(addr).String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open the bank: %w", err)
	}
	b.server.Handler = http.HandlerFunc(b.charge)
	b.server.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			b.mu.Lock()
			b.opened++
			b.mu.Unlock()
		}
	}
	b.wg.Go(func() { _ = b.server.Serve(l) })
	return b, nil
}

// charge answers with the path's last part.
func (b *Bank) charge(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimPrefix(r.URL.Path, "/")
	b.mu.Lock()
	b.charges[id]++
	b.total++
	b.mu.Unlock()
	fmt.Fprint(w, id)
}

// Charged is how often the bank was charged, doubled how many of the charges
// were repetitions, opened the number of connections to it.
func (b *Bank) Charged() (total, doubled, opened int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total, b.total - len(b.charges), b.opened
}

// Beats is how many of the charges, repetitions not counted, the teller made by its
// timer, and missing how many it has passed over.
func (b *Bank) Beats() (beats, missing int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := 0
	for id := range b.charges {
		if n, err := strconv.Atoi(strings.TrimPrefix(id, beatPrefix)); err == nil && strings.HasPrefix(id, beatPrefix) {
			beats, next = beats+1, max(next, n+1)
		}
	}
	return beats, next - beats
}

// beatPrefix begins what the teller is charged for by its timer; the beat's number
// follows, from 0.
const beatPrefix = "beat-"

// Target is where the bank is reached.
func Target(addr netip.Addr) netip.AddrPort { return netip.AddrPortFrom(addr, bankPort) }

// Close ends all connections.
func (b *Bank) Close() error {
	err := b.server.Close()
	b.wg.Wait()
	return err
}
