package recoverybench

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/crsc-io/crsc/testing/bench"
)

// idle are connections that have been used once and wait.
type idle []*bench.Redis

// openIdle opens n connections, each of which counts to one.
func openIdle(rig *bench.Rig, addr netip.AddrPort, n int) (idle, error) {
	conns, err := rig.DialMany(addr, n)
	i := make(idle, 0, n)
	for _, c := range conns {
		i = append(i, bench.NewRedis(c))
	}
	if err == nil {
		err = i.count("1")
	}
	if err != nil {
		i.close()
		return nil, fmt.Errorf("%d idle connections: %w", n, err)
	}
	return i, nil
}

// count counts on each connection, and compares.
func (i idle) count(want string) error {
	for n, c := range i {
		got, err := c.Do("INCR", fmt.Sprintf("idle:%d", n))
		if err != nil {
			return fmt.Errorf("idle connection %d: %w", n, err)
		}
		if got != want {
			return fmt.Errorf("idle connection %d counts %s instead of %s", n, got, want)
		}
	}
	return nil
}

func (i idle) close() {
	for _, c := range i {
		c.Close()
	}
}

// awaitCheckpoint returns when a checkpoint has been made that holds all
// connections.
func awaitCheckpoint(ctx context.Context, s *bench.Server, conns int) error {
	return bench.Until(ctx, func() error {
		st, err := s.Status()
		if err != nil {
			return err
		}
		if last := st.Checkpoints.Last; last == nil || last.Connections < conns {
			return fmt.Errorf("no checkpoint holds %d connections: %+v, %s", conns, last, st.Checkpoints.LastError)
		}
		return nil
	})
}
