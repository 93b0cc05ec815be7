package proxybench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/crsc-io/crsc/testing/bench"
)

// bulkValue is the size of one value; Redis takes up to 512 MB.
const bulkValue = 1 << 20

// transferred is how fast the targets moved a lot of data.
type transferred struct {
	targets      []*target
	in, out, all map[*target]bench.Sample // MB/s, of 10^6 bytes
}

// transfer moves values of 1 MB over one connection, with as many in flight as
// the sockets hold: first into the container, then out of it.
func (b *Benchmark) transfer(ctx context.Context, l *lab, targets []*target) (*transferred, error) {
	l.rig.Say("bulk transfer of %d MB in each direction: %d rounds of %d targets", b.bulk, b.rounds, len(targets))
	m := &transferred{targets, map[*target]bench.Sample{}, map[*target]bench.Sample{}, map[*target]bench.Sample{}}
	count := max(1, b.bulk*1e6/bulkValue)
	megabytes := float64(count*bulkValue) / 1e6
	for round := range b.rounds {
		for _, t := range turn(targets, round) {
			in, out, err := moveBoth(ctx, l.rig, t, count)
			if err != nil {
				return nil, fmt.Errorf("%s: bulk transfer: %w", t.title, err)
			}
			m.in[t] = append(m.in[t], megabytes/in.Seconds())
			m.out[t] = append(m.out[t], megabytes/out.Seconds())
			m.all[t] = append(m.all[t], 2*megabytes/(in+out).Seconds())
		}
	}
	return m, nil
}

func moveBoth(ctx context.Context, rig *bench.Rig, t *target, count int) (in, out time.Duration, err error) {
	c, err := rig.DialRedis(t.addr)
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	value := strings.Repeat("x", bulkValue)
	if in, err = pipelined(c, count, len("OK"), "SET", "bulk", value); err != nil {
		return 0, 0, err
	}
	out, err = pipelined(c, count, bulkValue, "GET", "bulk")
	return in, out, err
}

// pipelined sends one command count times without waiting for the replies, each
// of which must have the given length.
func pipelined(c *bench.Redis, count, length int, command ...string) (time.Duration, error) {
	request := bench.Command(command...)
	begun := time.Now()
	sent := make(chan error, 1)
	go func() {
		for range count {
			if _, err := c.Write(request); err != nil {
				c.Close() // ends the receiver too
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range count {
		n, err := c.Skip()
		if err == nil && n != length {
			err = fmt.Errorf("%w: %d bytes, want %d", bench.ErrReply, n, length)
		}
		if err != nil {
			c.Close() // ends the sender too
			<-sent
			return 0, err
		}
	}
	return time.Since(begun), <-sent
}

// direction is one of the things that a transfer measures.
type direction struct {
	metric string
	of     map[*target]bench.Sample
}

func (m *transferred) directions() []direction {
	return []direction{{"bulk_in_mb_s", m.in}, {"bulk_out_mb_s", m.out}, {"bulk_mb_s", m.all}}
}

func (m *transferred) report(out *bench.Results, l *lab) {
	for _, d := range m.directions() {
		for _, t := range m.targets {
			out.Add(d.metric+t.suffix(), d.of[t].Median(), "MB/s", t.title+", median of the rounds")
			if t != l.ours {
				out.Add(d.metric+"_vs"+t.suffix(), d.of[l.ours].Over(d.of[t]).Median(), "ratio", ratioOfRates)
			}
		}
	}
}

func (m *transferred) reportVariants(out *bench.Results, l *lab) {
	for _, d := range m.directions() {
		for _, t := range l.variants {
			out.Add(d.metric+t.suffix(), d.of[t].Median(), "MB/s", t.title+", median of the rounds")
			out.Add(d.metric+t.suffix()+"_vs_usual", d.of[t].Over(d.of[l.ours]).Median(), "ratio", ratioOfRates)
		}
	}
}

func (m *transferred) print(out *bench.Results, title string) {
	t := out.Table(title, "MB/s", "in", "out", "both", "in, against direct", "out, against direct")
	direct := m.targets[0]
	for _, v := range m.targets {
		t.Row(v.title, m.in[v].Median(), m.out[v].Median(), m.all[v].Median(),
			m.in[v].Over(m.in[direct]).Median(), m.out[v].Over(m.out[direct]).Median())
	}
}
