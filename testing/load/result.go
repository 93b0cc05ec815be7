package load

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"time"
)

// Result is what the clients saw, and what is stored.
type Result struct {
	Seconds  float64 `json:"seconds"`
	Requests int64   `json:"requests"` // replies received
	PerSec   float64 `json:"requests_per_second"`

	ClientErrors int64    `json:"client_errors"` // failed connects, sends and replies
	Resets       int64    `json:"resets"`        // of these, connection resets
	Errors       []string `json:"errors,omitempty"`
	WrongReplies int64    `json:"wrong_replies"`
	Wrong        []string `json:"wrong,omitempty"`

	Acknowledged int64 `json:"acknowledged"` // increments, over all keys
	Uncertain    int64 `json:"uncertain"`    // requests that failed without a reply
	Stored       int64 `json:"stored"`       // sum of all keys; -1: could not be read
	Lost         int64 `json:"lost"`         // acknowledged but not stored
	Doubled      int64 `json:"doubled"`      // stored beyond acknowledged and uncertain

	LatencyMS Latency `json:"latency_ms"`
	// LongestMS is each client's longest wait for a reply or a connection.
	LongestMS []float64 `json:"longest_ms"`
}

// Latency holds quantiles of the time from request to reply, in milliseconds.
type Latency struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Clean reports whether every client saw exactly what it should have, and
// nothing was lost or applied twice.
func (r Result) Clean() bool {
	return r.ClientErrors == 0 && r.WrongReplies == 0 && r.Lost == 0 && r.Doubled == 0 && r.Stored == r.Acknowledged
}

func (l *Load) result(ctx context.Context) (Result, error) {
	elapsed := time.Since(l.windows.start)
	r := Result{Seconds: elapsed.Seconds(), Stored: -1}
	var all histogram
	var longest time.Duration
	for _, c := range l.clients {
		r.ClientErrors += c.nFailed
		r.Resets += c.nReset
		r.WrongReplies += c.nWrong
		r.Errors, r.Wrong = appendSome(r.Errors, c.failed), appendSome(r.Wrong, c.wrong)
		for _, t := range []*tally{&c.own, &c.shared} {
			r.Acknowledged += t.acked
			r.Uncertain += t.uncertain
		}
		all.merge(&c.latency)
		longest = max(longest, c.longest)
		r.LongestMS = append(r.LongestMS, millis(c.longest))
	}
	r.Requests = int64(all.count)
	r.PerSec = float64(r.Requests) / elapsed.Seconds()
	r.LatencyMS = Latency{P50: millis(all.quantile(0.5)), P99: millis(all.quantile(0.99)), Max: millis(longest)}
	slices.Sort(r.LongestMS)
	if err := l.compare(ctx, &r); err != nil {
		return r, fmt.Errorf("read the keys back: %w", err)
	}
	return r, nil
}

// compare reads every key and books the differences.
func (l *Load) compare(ctx context.Context, r *Result) error {
	shared := tally{key: l.clients[0].shared.key}
	tallies := []*tally{&shared}
	for _, c := range l.clients {
		tallies = append(tallies, &c.own)
		shared.acked += c.shared.acked
		shared.uncertain += c.shared.uncertain
	}
	stored, err := l.read(ctx, tallies)
	if err != nil {
		return err
	}
	r.Stored = 0
	for i, t := range tallies {
		r.Stored += stored[i]
		r.Lost += max(0, t.acked-stored[i])
		r.Doubled += max(0, stored[i]-t.acked-t.uncertain)
	}
	return nil
}

// read gets the values over a connection of its own.
func (l *Load) read(ctx context.Context, tallies []*tally) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	conn, err := l.dial.Dial(ctx, l.o.Target)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(l.o.Timeout)); err != nil {
		return nil, err
	}
	reader := bufio.NewReader(conn)
	var values []int64
	for _, t := range tallies {
		if _, err := fmt.Fprintf(conn, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(t.key), t.key); err != nil {
			return nil, err
		}
		n, err := readBulkInteger(reader)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.key, err)
		}
		values = append(values, n)
	}
	return values, nil
}

// appendSome keeps the first few errors as text.
func appendSome(list []string, errs []error) []string {
	for _, err := range errs {
		if len(list) < 10 {
			list = append(list, err.Error())
		}
	}
	return list
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
