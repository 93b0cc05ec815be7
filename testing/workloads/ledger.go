package workloads

import (
	"context"
	"fmt"
	"strings"
)

// ledgerClients add records and ask the program whether its memory and its
// files agree.
type ledgerClients struct{ *swarm }

func startLedger(ctx context.Context, s *site) (clients, error) {
	w, err := startSwarm(ctx, s, 8, func(c *lineConn, client, i int) error {
		got, err := c.ask(fmt.Sprintf("add c%d %d\n", client, i))
		if want := fmt.Sprintf("ok %d", i); err == nil && got != want {
			err = fmt.Errorf("answered %q, not %q", got, want)
		}
		return err
	})
	return ledgerClients{w}, err
}

// Check implements clients.
func (l ledgerClients) Check(context.Context) error {
	got, err := l.judge.ask("verify\n")
	if err == nil && !strings.HasPrefix(got, "agree ") {
		err = fmt.Errorf("the program says %q", got)
	}
	return err
}

// Stop implements clients.
func (l ledgerClients) Stop(context.Context) (requests, errors int, err error) {
	defer l.close()
	l.halt()
	requests, errors = int(l.requests.Load()), int(l.errors.Load())
	got, err := l.judge.ask("verify\n")
	if want := fmt.Sprintf("agree %d", requests); err == nil && errors == 0 && got != want {
		err = fmt.Errorf("%d records were acknowledged, the program says %q", requests, got)
	}
	if err == nil {
		err = l.failure()
	}
	return requests, errors, err
}
