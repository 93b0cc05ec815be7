package workloads

import (
	"context"
	_ "embed" // the service
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

//go:embed sqlite.py
var sqliteService string

// sqliteClients speak HTTP, each on one connection.
type sqliteClients struct{ *swarm }

func startSQLite(ctx context.Context, s *site) (clients, error) {
	w, err := startSwarm(ctx, s, 6, func(c *lineConn, client, i int) error {
		got, err := c.http(http.MethodPost, fmt.Sprintf("/add?client=c%d&i=%d", client, i))
		if want := fmt.Sprintf("ok %d", i); err == nil && got != want {
			err = fmt.Errorf("answered %q, not %q", got, want)
		}
		return err
	})
	return sqliteClients{w}, err
}

// http makes a request on the connection and returns the body of the answer.
func (c *lineConn) http(method, path string) (string, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	req, err := http.NewRequest(method, "http://service"+path, nil)
	if err != nil {
		return "", err
	}
	if err := req.Write(c); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(c.in, req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || resp.Close) {
		err = fmt.Errorf("%s, close %t: %s", resp.Status, resp.Close, body)
	}
	return string(body), err
}

// Check implements clients.
func (s sqliteClients) Check(context.Context) error {
	got, err := s.judge.http(http.MethodGet, "/verify")
	if err == nil && !strings.HasPrefix(got, "agree ") {
		err = fmt.Errorf("the service says %q", got)
	}
	return err
}

// Stop implements clients.
func (s sqliteClients) Stop(context.Context) (requests, errors int, err error) {
	defer s.close()
	s.halt()
	requests, errors = int(s.requests.Load()), int(s.errors.Load())
	if err := s.failure(); err != nil {
		return requests, errors, err
	}
	got, err := s.judge.http(http.MethodGet, "/verify")
	if want := fmt.Sprintf("agree %d", requests); err == nil && got != want {
		err = fmt.Errorf("%d rows were acknowledged, the service says %q", requests, got)
	}
	return requests, errors, err
}
