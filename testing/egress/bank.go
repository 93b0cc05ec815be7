package egress

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/crsc-io/crsc/testing/env"
)

const bankPort = 8080

// beatPrefix begins what the teller is charged for by its timer; the beat's number
// follows, from 0.
const beatPrefix = "beat-"

// bank is an unprotected server that counts what it is charged for.
type bank interface {
	// Charges says how often each thing was charged, and over how many connections.
	Charges(context.Context) (charges map[string]int, connections int, err error)
	Close() error
}

// openBank starts the one that a teller charges, where the clients are.
func openBank(ctx context.Context, e *env.Env, t Teller) (bank, error) {
	path, addr := e.Client().Path, e.Pod().ClientIP4
	switch t {
	case Redis:
		return openRedisBank(ctx, path, addr)
	case Postgres:
		return openPostgresBank(ctx, e.Dir, path, addr)
	}
	return OpenWebBank(path, addr)
}

// Target is where the bank is reached.
func Target(addr netip.Addr) netip.AddrPort { return netip.AddrPortFrom(addr, bankPort) }

// count asks the bank.
func (r *Report) count(ctx context.Context, b bank) error {
	charges, connections, err := b.Charges(ctx)
	if err != nil {
		return fmt.Errorf("ask the bank: %w", err)
	}
	r.Connections = connections
	next := 0
	for id, n := range charges {
		r.Charged += n
		r.Doubled += n - 1
		number, isBeat := strings.CutPrefix(id, beatPrefix)
		if !isBeat {
			continue
		}
		k, err := strconv.Atoi(number)
		if err != nil {
			return fmt.Errorf("the bank was charged for %q: %w", id, err)
		}
		r.Beats, next = r.Beats+1, max(next, k+1)
	}
	r.MissingBeats = next - r.Beats
	return nil
}
