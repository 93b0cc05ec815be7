package workloads

import (
	"context"
	"fmt"
)

// memcachedClients each increment a counter of their own and store values.
type memcachedClients struct{ *swarm }

func startMemcached(ctx context.Context, s *site) (clients, error) {
	w, err := startSwarm(ctx, s, 8, func(c *lineConn, client, i int) error {
		if i == 1 {
			return expect(c, fmt.Sprintf("set n%d 0 0 1\r\n1\r\n", client), "STORED")
		}
		if err := expect(c, fmt.Sprintf("incr n%d 1\r\n", client), fmt.Sprint(i)); err != nil {
			return err
		}
		value := fmt.Sprintf("%d-%d", client, i)
		return expect(c, fmt.Sprintf("set v%d-%d 0 0 %d\r\n%s\r\n", client, i%100, len(value), value), "STORED")
	})
	return memcachedClients{w}, err
}

func expect(c *lineConn, request, want string) error {
	got, err := c.ask(request)
	if err == nil && got != want {
		err = fmt.Errorf("%q was answered %q, not %q", request, got, want)
	}
	return err
}

// Check implements clients: the service is alive; each client checks its
// counter all the time.
func (m memcachedClients) Check(context.Context) error {
	if err := m.failure(); err != nil {
		return err
	}
	return expect(m.judge, "mn\r\n", "MN")
}

// Stop implements clients.
func (m memcachedClients) Stop(context.Context) (requests, errors int, err error) {
	defer m.close()
	m.halt()
	requests, errors = int(m.requests.Load()), int(m.errors.Load())
	if err := m.failure(); err != nil {
		return requests, errors, err
	}
	for client, n := range m.count {
		if n == 0 {
			continue
		}
		// An increment by nothing tells the value on one line.
		if err := expect(m.judge, fmt.Sprintf("incr n%d 0\r\n", client), fmt.Sprint(n)); err != nil {
			return requests, errors, fmt.Errorf("client %d was acknowledged %d: %w", client, n, err)
		}
	}
	return requests, errors, nil
}
