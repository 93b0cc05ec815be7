package proxybench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/testing/bench"
)

// processorTime is what the threads of a process have used, in seconds
// (Documentation/scheduler/sched-stats.rst). A thread that ends takes its share
// away: the processes that are measured keep theirs.
func processorTime(pid int) (float64, error) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, t := range threads {
		b, err := os.ReadFile(filepath.Join(dir, t.Name(), "schedstat"))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // it has just ended
		}
		if err != nil {
			return 0, err
		}
		onCPU, _, _ := bytes.Cut(b, []byte(" "))
		ns, err := strconv.ParseFloat(string(onCPU), 64)
		if err != nil {
			return 0, fmt.Errorf("%s/%s/schedstat: %w", dir, t.Name(), err)
		}
		sum += ns / 1e9
	}
	return sum, nil
}

// residentKiB is a process's resident memory.
func residentKiB(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseFloat(string(bytes.Fields(b)[1]), 64)
	return pages * float64(os.Getpagesize()) / 1024, err
}

// idleConnections is how many the memory is measured with.
const idleConnections = 5000

// bareGrid is every load of the servers outside of containers.
func bareGrid() []cell {
	return []cell{
		{"set", 1, 1}, {"set", 1, 16}, {"set", 50, 1}, {"set", 50, 16}, {"set", 500, 1}, {"set", 500, 16}, {"set", idleConnections, 1},
	}
}

// many measures what needs no container: thousands of connections, memory while
// they are idle, processor time, and HTTP.
func (b *Benchmark) many(ctx context.Context, rig *bench.Rig, out *bench.Results) (err error) {
	p, err := newBare(ctx, rig)
	defer func() {
		if cerr := p.close(); err == nil {
			err = cerr
		}
	}()
	if err != nil {
		return err
	}
	// Before anything else: a proxy that has had many connections keeps memory.
	if b.only.MatchString("idle") {
		if err := b.idle(p, out); err != nil {
			return err
		}
	}
	l := &lab{rig: rig, direct: p.direct, haproxy: p.haproxy, ours: p.ours}
	targets := []*target{p.direct, p.haproxy, p.ours}
	var cells []*measured
	for _, c := range bareGrid() {
		if !b.only.MatchString(c.metric()) {
			continue
		}
		m, err := b.measure(ctx, l, c, targets)
		if err != nil {
			return err
		}
		if c.conns == idleConnections {
			m.report(out, l)
		}
		cells = append(cells, m)
	}
	printGrid(out, cells, targets)
	printCost(out, cells, targets)
	if b.only.MatchString("http") {
		return b.http(ctx, p, out)
	}
	return nil
}

// printCost shows the processor time of the proxies themselves.
func printCost(out *bench.Results, cells []*measured, targets []*target) {
	if len(cells) == 0 {
		return
	}
	t := out.Table("Processor time of the proxy, ms per 1,000 requests", "redis-benchmark", "HAProxy, 1 thread", "ours", "ours/HAProxy")
	for _, m := range cells {
		h, o := m.of[targets[1]].cpu, m.of[targets[2]].cpu
		t.Row(m.String(), h.Median(), o.Median(), spread(o.Over(h)))
		out.Add(m.metric()+"_cpu_ms_per_1000", o.Median(), "ms", "processor time of the proxy for 1,000 requests, ours")
		out.Add(m.metric()+"_cpu_ms_per_1000_haproxy", h.Median(), "ms", "the same, HAProxy with one thread")
		addRatio(out, m.metric()+"_cpu_vs_haproxy", o.Over(h), "median of the rounds; less is better")
	}
}

// idle measures memory with connections that have been used once and wait.
func (b *Benchmark) idle(p *bare, out *bench.Results) error {
	t := out.Table(fmt.Sprintf("Memory for %d idle connections", idleConnections), "proxy", "KiB a connection, resident", "MiB in all, resident")
	for _, x := range []struct {
		t *target
	}{{p.haproxy}, {p.ours}} {
		debug.FreeOSMemory()
		before, err := residentKiB(x.t.pid)
		if err != nil {
			return err
		}
		conns, err := p.rig.DialMany(x.t.addr, idleConnections)
		if err == nil {
			err = touch(conns)
		}
		debug.FreeOSMemory()
		after, rerr := residentKiB(x.t.pid)
		for _, c := range conns {
			c.Close()
		}
		if err != nil {
			return fmt.Errorf("%s: %d idle connections: %w", x.t.title, idleConnections, err)
		}
		if rerr != nil {
			return rerr
		}
		each := (after - before) / idleConnections
		t.Row(x.t.title, each, after/1024)
		out.Add("idle_5000_kib_per_connection"+x.t.suffix(), each, "KiB", "resident memory of the proxy's process for one idle connection; for ours the client's end, which is in the same process, included")
		out.Add("idle_5000_mib"+x.t.suffix(), after/1024, "MiB", "resident memory of the proxy's process with 5,000 idle connections")
	}
	return nil
}

// touch sends one request on each connection.
func touch(conns []net.Conn) error {
	request, reply := bench.Command("PING"), make([]byte, len("+PONG\r\n"))
	for _, c := range conns {
		if _, err := c.Write(request); err != nil {
			return err
		}
		if _, err := c.Read(reply); err != nil {
			return err
		}
	}
	return nil
}

// webAddr is a page of a target.
func webAddr(addr netip.AddrPort, page string) string { return "http://" + addr.String() + "/" + page }
