package tcprepair

import (
	"errors"
	"math/rand/v2"
	"testing"
)

func TestCommonPortsAreFIFO(t *testing.T) {
	p, err := NewPorts(PortOptions{Low: 2000, High: 2009, EphemeralLow: 2008, EphemeralHigh: 3000, Exclude: []uint16{2003}})
	if err != nil {
		t.Fatal(err)
	}
	var got []uint16
	for p.Len() > 0 {
		port, err := p.GetCommon()
		if err != nil {
			t.Fatal(err)
		}
		if port == 2003 || port >= 2008 || port < 2000 {
			t.Errorf("port %d handed out", port)
		}
		got = append(got, port)
	}
	if len(got) != 7 {
		t.Fatalf("%d ports, want 7", len(got))
	}
	if _, err := p.GetCommon(); !errors.Is(err, ErrNoPort) {
		t.Errorf("empty: %v", err)
	}
	p.Put(1, got[3])
	p.Put(1, got[0])
	p.Put(1, got[0]) // twice
	p.Put(1, 5000)   // not ours
	if p.Len() != 2 {
		t.Errorf("%d free, want 2", p.Len())
	}
	for _, want := range []uint16{got[3], got[0]} {
		if port, _ := p.GetCommon(); port != want {
			t.Errorf("got %d, want %d", port, want)
		}
	}
	if _, err := NewPorts(PortOptions{Low: 10, High: 9}); !errors.Is(err, ErrPortRange) {
		t.Errorf("empty range: %v", err)
	}
}

// TestPortsNeverTwice drives the allocator at random against sets: a peer never
// has a port twice, and no two have the same common one.
func TestPortsNeverTwice(t *testing.T) {
	const peers, common = 3, 50
	p, err := NewPorts(PortOptions{Low: 1500, High: 1500 + common - 1})
	if err != nil {
		t.Fatal(err)
	}
	type leg struct {
		peer uint64
		port uint16
	}
	used, shared, private := map[leg]bool{}, map[uint16]bool{}, [peers]int{}
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 200_000 {
		peer := uint64(rng.IntN(peers))
		if rng.IntN(4) > 0 {
			port, err := p.Get(peer)
			switch {
			case err != nil:
				if len(shared) != common || private[peer] != privateEnd-1 {
					t.Fatalf("step %d: none free with %d and %d in use", i, private[peer], len(shared))
				}
				continue
			case port == 0 || used[leg{peer, port}] || shared[port] || !p.Has(port):
				t.Fatalf("step %d: %d handed out", i, port)
			case port >= privateEnd:
				if private[peer] != privateEnd-1 {
					t.Fatalf("step %d: a common port with %d of its own in use", i, private[peer])
				}
				shared[port] = true
			default:
				private[peer]++
			}
			used[leg{peer, port}] = true
			continue
		}
		for l := range used {
			p.Put(l.peer, l.port)
			p.Put(l.peer, l.port) // no harm
			delete(used, l)
			if delete(shared, l.port); l.port < privateEnd {
				private[l.peer]--
			}
			break
		}
		if p.Len() != common-len(shared) {
			t.Fatalf("step %d: %d free, %d in use", i, p.Len(), len(shared))
		}
	}
	for l := range used {
		p.Put(l.peer, l.port)
	}
	if len(p.private) != 0 {
		t.Errorf("%d peers are remembered without a leg", len(p.private))
	}
}

func BenchmarkPorts(b *testing.B) {
	p, err := NewPorts(PortOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := range b.N {
		port, err := p.Get(uint64(i % 100))
		if err != nil {
			b.Fatal(err)
		}
		p.Put(uint64(i%100), port)
	}
}
