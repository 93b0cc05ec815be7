package proxybench

import (
	"fmt"

	"github.com/crsc-io/crsc/testing/bench"
)

// figure is one of the things that redis-benchmark measures.
type figure struct {
	name, unit string
	of         func(*series) bench.Sample
}

func figures() []figure {
	return []figure{
		{"rps", "requests/s", func(s *series) bench.Sample { return s.rps }},
		{"p50", "ms", func(s *series) bench.Sample { return s.p50 }},
		{"p99", "ms", func(s *series) bench.Sample { return s.p99 }},
		{"p999", "ms", func(s *series) bench.Sample { return s.p999 }},
	}
}

const (
	ratioOfRates = "ratio of throughputs, median of the rounds; 1 is as fast, more is faster"
	ratioOfTimes = "ratio of latencies, median of the rounds; 1 is the same, more is slower"
)

func (f figure) ratioNote() string {
	if f.unit == "ms" {
		return ratioOfTimes
	}
	return ratioOfRates
}

// addRatio adds the median of the rounds' ratios, and their quartiles, which tell
// how much of it is noise.
func addRatio(out *bench.Results, metric string, s bench.Sample, note string) {
	out.Add(metric, s.Median(), "ratio", note)
	out.Add(metric+"_q1", s.Quantile(0.25), "ratio", "a quarter of the rounds is below")
	out.Add(metric+"_q3", s.Quantile(0.75), "ratio", "a quarter of the rounds is above")
}

// spread shows a median and its quartiles.
func spread(s bench.Sample) string {
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median(), s.Quantile(0.25), s.Quantile(0.75))
}

// suffix separates a target's figures from ours.
func (t *target) suffix() string {
	if t.name == "" {
		return ""
	}
	return "_" + t.name
}

// report adds every target's figures, and ours in relation to the others'.
func (m *measured) report(out *bench.Results, l *lab) {
	for _, f := range figures() {
		prefix := m.metric() + "_" + f.name
		ours := f.of(m.of[l.ours])
		for _, t := range m.targets {
			s := f.of(m.of[t])
			out.Add(prefix+t.suffix(), s.Median(), f.unit, t.title+", median of the rounds")
			if t != l.ours {
				addRatio(out, prefix+"_vs"+t.suffix(), ours.Over(s), f.ratioNote())
			}
		}
		haproxy := f.of(m.of[l.haproxy])
		addRatio(out, prefix+"_haproxy_vs_direct", haproxy.Over(f.of(m.of[l.direct])), f.ratioNote())
	}
}

// reportVariants adds what our options do, in relation to the usual ones and to
// the direct way.
func (m *measured) reportVariants(out *bench.Results, l *lab) {
	for _, f := range figures() {
		prefix := m.metric() + "_" + f.name
		for _, t := range l.variants {
			s := f.of(m.of[t])
			out.Add(prefix+t.suffix(), s.Median(), f.unit, t.title+", median of the rounds")
			out.Add(prefix+t.suffix()+"_vs_usual", s.Over(f.of(m.of[l.ours])).Median(), "ratio",
				t.title+" against order tracepoint, durability page-cache, no checkpoints; "+f.ratioNote())
			out.Add(prefix+t.suffix()+"_vs_direct", s.Over(f.of(m.of[l.direct])).Median(), "ratio", f.ratioNote())
		}
	}
}

func printGrid(out *bench.Results, cells []*measured, targets []*target) {
	if len(cells) == 0 {
		return
	}
	direct, haproxy, ours := targets[0], targets[1], targets[2]
	t := out.Table("Throughput, requests/s", "redis-benchmark", "direct", haproxy.title, "ours", "HAProxy/direct", "ours/direct", "ours/HAProxy")
	for _, m := range cells {
		d, h, o := m.of[direct], m.of[haproxy], m.of[ours]
		t.Row(m.String(), d.rps.Median(), h.rps.Median(), o.rps.Median(),
			spread(h.rps.Over(d.rps)), spread(o.rps.Over(d.rps)), spread(o.rps.Over(h.rps)))
	}
	t = out.Table("Latency, ms (p50 / p99 / p99.9)", "redis-benchmark", "direct", haproxy.title, "ours", "p50 ours/HAProxy", "p99 ours/HAProxy")
	show := func(s *series) string {
		return fmt.Sprintf("%.2f / %.2f / %.2f", s.p50.Median(), s.p99.Median(), s.p999.Median())
	}
	for _, m := range cells {
		h, o := m.of[haproxy], m.of[ours]
		t.Row(m.String(), show(m.of[direct]), show(h), show(o), spread(o.p50.Over(h.p50)), spread(o.p99.Over(h.p99)))
	}
}

func printVariants(out *bench.Results, cells []*measured, l *lab) {
	for _, m := range cells {
		t := out.Table("Our options: "+m.String(), "option", "requests/s", "against usual", "against direct", "p99, ms")
		usual, direct := m.of[l.ours], m.of[l.direct]
		for _, v := range m.targets {
			s := m.of[v]
			title := v.title
			if v == l.ours {
				title = "usual: order tracepoint, durability page-cache, no checkpoints"
			}
			t.Row(title, s.rps.Median(), s.rps.Over(usual.rps).Median(), s.rps.Over(direct.rps).Median(), s.p99.Median())
		}
	}
}
