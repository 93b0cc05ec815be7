package proxybench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"

	"github.com/crsc-io/crsc/testing/bench"
)

// ErrOutput is returned when redis-benchmark says something unexpected.
var ErrOutput = errors.New("redis-benchmark")

// cell is one kind of load.
type cell struct {
	op              string // set, get or incr
	conns, pipeline int
}

// grid is every load of the main table.
func grid() []cell {
	var out []cell
	for _, op := range []string{"set", "get", "incr"} {
		for _, conns := range []int{1, 50, 500} {
			for _, pipeline := range []int{1, 16} {
				out = append(out, cell{op, conns, pipeline})
			}
		}
	}
	return out
}

// metric is the prefix of the cell's figures.
func (c cell) metric() string {
	m := fmt.Sprintf("redis_%s_%d", c.op, c.conns)
	if c.pipeline > 1 {
		m += fmt.Sprintf("_p%d", c.pipeline)
	}
	return m
}

func (c cell) String() string {
	if c.pipeline > 1 {
		return fmt.Sprintf("%s, %d connections, pipeline of %d", c.op, c.conns, c.pipeline)
	}
	return fmt.Sprintf("%s, %d connections", c.op, c.conns)
}

// run is what redis-benchmark found in one measurement.
type run struct {
	rps            float64
	p50, p99, p999 float64 // milliseconds; with a pipeline, of the whole batch
	requests       int
}

// redisBenchmark sends n requests.
func redisBenchmark(ctx context.Context, rig *bench.Rig, addr netip.AddrPort, c cell, n int) (run, error) {
	cmd, err := rig.ClientCommand(ctx, "redis-benchmark", "-h", addr.Addr().String(), "-p", strconv.Itoa(int(addr.Port())),
		"-t", c.op, "-c", strconv.Itoa(c.conns), "-P", strconv.Itoa(c.pipeline), "-n", strconv.Itoa(n), "--precision", "3")
	if err != nil {
		return run{}, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return run{}, fmt.Errorf("%w: %s: %w: %s", ErrOutput, addr, err, stderr.Bytes())
	}
	r, err := parse(out)
	r.requests = n
	return r, err
}

var (
	percentileLine = regexp.MustCompile(`^([0-9.]+)% <= ([0-9.]+) milliseconds`)
	throughputLine = regexp.MustCompile(`throughput summary: ([0-9.]+) requests per second`)
)

// parse reads the text that redis-benchmark 6.0 and later print. Quantiles are
// taken from its list by percentile: the first entry that reaches them.
func parse(out []byte) (run, error) {
	var r run
	wanted := []struct {
		q    float64
		into *float64
	}{{50, &r.p50}, {99, &r.p99}, {99.9, &r.p999}}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		line := lines.Text()
		if m := percentileLine.FindStringSubmatch(line); m != nil {
			q, err1 := strconv.ParseFloat(m[1], 64)
			v, err2 := strconv.ParseFloat(m[2], 64)
			if err := errors.Join(err1, err2); err != nil {
				return r, fmt.Errorf("%w: %q: %w", ErrOutput, line, err)
			}
			for len(wanted) > 0 && q >= wanted[0].q {
				*wanted[0].into, wanted = v, wanted[1:]
			}
		}
		if m := throughputLine.FindStringSubmatch(line); m != nil {
			rps, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				return r, fmt.Errorf("%w: %q: %w", ErrOutput, line, err)
			}
			r.rps = rps
		}
	}
	if r.rps <= 0 || len(wanted) > 0 {
		return r, fmt.Errorf("%w: cannot read %q", ErrOutput, out)
	}
	return r, lines.Err()
}
