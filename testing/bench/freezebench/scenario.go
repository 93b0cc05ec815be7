package freezebench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/load"
)

// checkpoint is one that was made. Times are in milliseconds.
type checkpoint struct {
	begun  time.Time
	held   float64
	frozen float64
	cut    float64 // part of frozen
	total  float64
	quiet  bool
}

func (c checkpoint) end() time.Time {
	return c.begun.Add(time.Duration(c.total * float64(time.Millisecond)))
}

// source runs a Redis and makes checkpoints of it.
type source interface {
	// start runs the container.
	start(ctx context.Context, rig *bench.Rig, id string) (*bench.Server, error)
	// collect returns count checkpoints.
	collect(ctx context.Context, rig *bench.Rig, s *bench.Server, count int) ([]checkpoint, error)
	// failures counts those that failed during collect, and quotes the last.
	failures() (count int, last string)
	// stop removes the container.
	stop(ctx context.Context, rig *bench.Rig, s *bench.Server) error
	// prefix keeps the containers' names apart.
	prefix() string
}

// scenario is a Redis and what clients do meanwhile.
type scenario struct {
	name, title string
	count       int
	probe       bool
	connections int // 0: no load
	heapMB      int // 0: empty
}

// outcome is what a scenario has shown.
type outcome struct {
	scenario
	checkpoints []checkpoint
	wait        float64      // median wait of the prober, all the time
	gaps        bench.Sample // beyond that, in each checkpoint
	quiet       bench.Sample // the same between checkpoints
	load        load.Result
	failed      int // checkpoints, beside those that are listed
	lastError   string
}

func (s scenario) run(ctx context.Context, rig *bench.Rig, from source) (o *outcome, err error) {
	id := from.prefix() + s.name
	server, err := from.start(ctx, rig, id)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", id, err)
	}
	defer func() { err = errors.Join(err, from.stop(context.WithoutCancel(ctx), rig, server)) }()
	if s.heapMB > 0 {
		if err := fill(rig, server, s.heapMB); err != nil {
			return nil, fmt.Errorf("%s: fill: %w", id, err)
		}
	}
	o = &outcome{scenario: s}
	if err := o.watch(ctx, rig, server, from); err != nil {
		return nil, fmt.Errorf("%s: %w", id, err)
	}
	return o, nil
}

// watch makes the checkpoints while clients work.
func (o *outcome) watch(ctx context.Context, rig *bench.Rig, server *bench.Server, from source) (err error) {
	var prober *bench.Prober
	if o.probe {
		if prober, err = rig.StartProber(server.Addr); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, prober.Stop()) }()
	}
	var clients *load.Load
	if o.connections > 0 {
		clients, err = load.Start(ctx, load.Options{Netns: rig.Env.Client().Path, Target: server.Addr, Connections: o.connections})
		if err != nil {
			return err
		}
	}
	o.checkpoints, err = from.collect(ctx, rig, server, o.count)
	o.failed, o.lastError = from.failures()
	if clients != nil {
		result, stopErr := clients.Stop(ctx)
		o.load = result
		if err = errors.Join(err, stopErr); err == nil && !result.Clean() {
			err = fmt.Errorf("checkpoints disturbed clients: %v %v", result.Errors, result.Wrong)
		}
	}
	if err != nil || prober == nil {
		return err
	}
	if err := prober.Stop(); err != nil {
		return err
	}
	o.findGaps(prober)
	return nil
}

// findGaps looks at the time of each checkpoint, and at one halfway to the next,
// which is as long if there is room.
func (o *outcome) findGaps(p *bench.Prober) {
	o.wait = p.Median()
	for i, c := range o.checkpoints {
		o.gaps = append(o.gaps, p.Longest(c.begun, c.end())-o.wait)
		if i+1 == len(o.checkpoints) {
			break
		}
		room := o.checkpoints[i+1].begun.Sub(c.end())
		length := min(c.end().Sub(c.begun), room*8/10)
		if from := c.end().Add((room - length) / 2); length > 0 {
			o.quiet = append(o.quiet, p.Longest(from, from.Add(length))-o.wait)
		}
	}
}

// fill gives a Redis as much data, in values of 1 KB.
func fill(rig *bench.Rig, s *bench.Server, megabytes int) error {
	c, err := rig.DialRedis(s.Addr)
	if err != nil {
		return err
	}
	defer c.Close()
	const script = `local v = string.rep('x', 1000) for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do redis.call('SET', 'fill:'..i, v) end return 'OK'`
	keys := megabytes << 20 / 1000
	for from := 1; from <= keys; from += 10000 {
		if _, err := c.Do("EVAL", script, "0", strconv.Itoa(from), strconv.Itoa(min(from+9999, keys))); err != nil {
			return err
		}
	}
	return nil
}
