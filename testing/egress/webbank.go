package egress

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// WebBank is a bank that is charged by HTTP, for each path.
type WebBank struct {
	server http.Server
	wg     sync.WaitGroup

	mu      sync.Mutex // guards all below
	charges map[string]int
	opened  int // connections
}

// OpenWebBank serves in the network namespace at path, on one of its addresses.
func OpenWebBank(path string, addr netip.Addr) (*WebBank, error) {
	b := &WebBank{charges: map[string]int{}}
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
func (b *WebBank) charge(w http.ResponseWriter, r *http.Request) {
	id := strings.TrimPrefix(r.URL.Path, "/")
	b.mu.Lock()
	b.charges[id]++
	b.mu.Unlock()
	fmt.Fprint(w, id)
}

// Charges implements bank.
func (b *WebBank) Charges(context.Context) (map[string]int, int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.charges), b.opened, nil
}

// Charged says how much was charged in all, and how much of it more than once.
func (b *WebBank) Charged() (total, doubled int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.charges {
		total, doubled = total+n, doubled+n-1
	}
	return total, doubled
}

// Close implements bank: it ends all connections.
func (b *WebBank) Close() error {
	err := b.server.Close()
	b.wg.Wait()
	return err
}
