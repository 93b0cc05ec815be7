package proxybench

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/crsc-io/crsc/testing/bench"
)

// page is what a web server is asked for, over 50 connections that stay open.
type page struct{ metric, path, title string }

const webConnections = "50"

// http compares the ways to nginx, with wrk.
func (b *Benchmark) http(ctx context.Context, p *bare, out *bench.Results) error {
	t := out.Table("HTTP, 50 connections kept open", "page", "direct, requests/s", "HAProxy", "ours", "HAProxy/direct", "ours/direct", "ours/HAProxy", "p99 ours/HAProxy")
	direct, haproxy, ours := p.web[0], p.web[1], p.web[2]
	var rival *target
	if p.rival != nil {
		rival = p.web[3]
	}
	rivals := newRivalTable(out, "HTTP", ours, rival)
	for _, pg := range []page{{"http_small", "small", "5 bytes"}, {"http_1mb", "1mb", "1 MB"}} {
		p.rig.Say("http, %s: %d rounds of %d targets", pg.title, b.rounds, len(p.web))
		of := map[*target]*series{}
		for round := range b.rounds + 1 {
			for _, w := range turn(p.web, round) {
				if round == 0 {
					of[w] = &series{}
				}
				if err := of[w].web(ctx, p.rig, w, pg, max(b.length, 500*time.Millisecond)); err != nil {
					return fmt.Errorf("%s: %s: %w", w.title, pg.path, err)
				}
				if round == 0 {
					of[w] = &series{} // it was for warming up
				}
			}
		}
		d, h, o := of[direct], of[haproxy], of[ours]
		t.Row(pg.title, d.rps.Median(), h.rps.Median(), o.rps.Median(), spread(h.rps.Over(d.rps)),
			spread(o.rps.Over(d.rps)), spread(o.rps.Over(h.rps)), spread(o.p99.Over(h.p99)))
		rivals.row(pg.title, pg.metric, of)
		for _, f := range figures()[:3] {
			for _, w := range p.web {
				out.Add(pg.metric+"_"+f.name+w.suffix(), f.of(of[w]).Median(), f.unit, w.title+", median of the rounds")
				if w != ours {
					addRatio(out, pg.metric+"_"+f.name+"_vs"+w.suffix(), f.of(o).Over(f.of(of[w])), f.ratioNote())
				}
			}
		}
	}
	return nil
}

// web measures a page once.
func (s *series) web(ctx context.Context, rig *bench.Rig, t *target, pg page, length time.Duration) error {
	before, err := t.processorTime()
	if err != nil {
		return err
	}
	r, err := wrk(ctx, rig, webAddr(t.addr, pg.path), length)
	if err != nil {
		return err
	}
	s.add(r)
	return s.addCost(t, before, r.requests)
}

var (
	wrkRate    = regexp.MustCompile(`(?m)^Requests/sec:\s+([0-9.]+)`)
	wrkCount   = regexp.MustCompile(`(?m)^\s+([0-9]+) requests in`)
	wrkLatency = regexp.MustCompile(`(?m)^\s+(50|99)%\s+(\S+)`)
)

// wrk asks for a page for a while.
func wrk(ctx context.Context, rig *bench.Rig, url string, length time.Duration) (run, error) {
	// wrk knows whole seconds only.
	seconds := strconv.Itoa(int(length.Seconds() + 0.999))
	cmd, err := rig.ClientCommand(ctx, "wrk", "-t", "1", "-c", webConnections, "-d", seconds, "--latency", url)
	if err != nil {
		return run{}, err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return run{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	return parseWrk(string(out))
}

// parseWrk reads what wrk 4 prints. Errors of any request are an error.
func parseWrk(out string) (run, error) {
	var r run
	for _, bad := range []string{"Socket errors", "Non-2xx"} {
		if strings.Contains(out, bad) {
			return r, fmt.Errorf("%w: wrk: %s", ErrOutput, out)
		}
	}
	if m := wrkRate.FindStringSubmatch(out); m != nil {
		rps, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return r, fmt.Errorf("%w: wrk: %q: %w", ErrOutput, m[0], err)
		}
		r.rps = rps
	}
	if m := wrkCount.FindStringSubmatch(out); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return r, fmt.Errorf("%w: wrk: %q: %w", ErrOutput, m[0], err)
		}
		r.requests = n
	}
	for _, m := range wrkLatency.FindAllStringSubmatch(out, -1) {
		d, err := time.ParseDuration(m[2])
		if err != nil {
			return r, fmt.Errorf("%w: wrk: %q: %w", ErrOutput, m[0], err)
		}
		if m[1] == "50" {
			r.p50 = bench.Millis(d)
		} else {
			r.p99 = bench.Millis(d)
		}
	}
	if r.rps <= 0 || r.requests <= 0 || r.p50 <= 0 || r.p99 <= 0 {
		return r, fmt.Errorf("%w: wrk: cannot read %q", ErrOutput, out)
	}
	return r, nil
}
