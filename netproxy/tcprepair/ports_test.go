package tcprepair

import (
	"errors"
	"math/rand/v2"
	"testing"
)

func TestPortsAreFIFO(t *testing.T) {
	p, err := NewPorts(PortOptions{Low: 100, High: 109, EphemeralLow: 108, EphemeralHigh: 200, Exclude: []uint16{103}})
	if err != nil {
		t.Fatal(err)
	}
	var got []uint16
	for p.Len() > 0 {
		port, err := p.Get()
		if err != nil {
			t.Fatal(err)
		}
		if port == 103 || port >= 108 || port < 100 {
			t.Errorf("port %d handed out", port)
		}
		got = append(got, port)
	}
	if len(got) != 7 {
		t.Fatalf("%d ports, want 7", len(got))
	}
	if _, err := p.Get(); !errors.Is(err, ErrNoPort) {
		t.Errorf("empty: %v", err)
	}
	p.Put(got[3])
	p.Put(got[0])
	p.Put(got[0]) // twice
	p.Put(5000)   // not ours
	if p.Len() != 2 {
		t.Errorf("%d free, want 2", p.Len())
	}
	for _, want := range []uint16{got[3], got[0]} {
		if port, _ := p.Get(); port != want {
			t.Errorf("got %d, want %d", port, want)
		}
	}
	if _, err := NewPorts(PortOptions{Low: 10, High: 9}); !errors.Is(err, ErrPortRange) {
		t.Errorf("empty range: %v", err)
	}
}

// TestPortsNeverTwice drives the allocator at random against a set.
func TestPortsNeverTwice(t *testing.T) {
	p, err := NewPorts(PortOptions{Low: 1000, High: 1049})
	if err != nil {
		t.Fatal(err)
	}
	used := map[uint16]bool{}
	for i := range 100000 {
		switch port := uint16(995 + rand.IntN(60)); rand.IntN(3) {
		case 0:
			if got, err := p.Get(); err == nil {
				if used[got] {
					t.Fatalf("step %d: %d handed out twice", i, got)
				}
				used[got] = true
			} else if len(used) != 50 {
				t.Fatalf("step %d: none free with %d in use", i, len(used))
			}
		case 1:
			want := port >= 1000 && port <= 1049 && !used[port]
			if got := p.Claim(port); got != want {
				t.Fatalf("step %d: claim %d: %v", i, port, got)
			} else if got {
				used[port] = true
			}
		case 2:
			p.Put(port)
			delete(used, port)
		}
		if p.Len() != 50-len(used) {
			t.Fatalf("step %d: %d free, %d in use", i, p.Len(), len(used))
		}
	}
}
