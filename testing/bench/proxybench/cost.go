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
	"strconv"
	"time"

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

// processorTime is that of the target's proxy; 0 if it is not measured.
func (t *target) processorTime() (float64, error) {
	if t.pid == 0 {
		return 0, nil
	}
	return processorTime(t.pid)
}

// restingTime is processorTime when the proxy has closed what the load's program has
// left to it: with thousands of connections that is a good part, and how much of it is
// done when the program ends is chance.
func (t *target) restingTime() (float64, error) {
	const (
		window = 20 * time.Millisecond
		rest   = 0.5e-3 // seconds of processor time in a window
	)
	before, err := t.processorTime()
	for end := time.Now().Add(5 * time.Second); err == nil && t.pid != 0; {
		time.Sleep(window)
		now, nowErr := t.processorTime()
		if nowErr != nil || now-before < rest {
			return now, nowErr
		}
		if time.Now().After(end) {
			return 0, fmt.Errorf("the proxy of %s does not come to rest", t.title)
		}
		before = now
	}
	return before, err
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
	p, err := newBare(ctx, rig, b.rival)
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
	targets := p.targets()
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
	if len(cells) > 0 {
		rivals := newRivalTable(out, "Redis", p.ours, p.rival)
		for _, m := range cells {
			rivals.row(m.String(), m.metric(), m.of)
		}
	}
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
	for _, target := range p.targets()[1:] {
		before, err := residentKiB(target.pid)
		if err != nil {
			return err
		}
		conns, err := p.rig.DialMany(target.addr, idleConnections)
		if err == nil {
			err = touch(conns)
		}
		after, rerr := residentKiB(target.pid)
		for _, c := range conns {
			c.Close()
		}
		if err != nil {
			return fmt.Errorf("%s: %d idle connections: %w", target.title, idleConnections, err)
		}
		if rerr != nil {
			return rerr
		}
		each := (after - before) / idleConnections
		t.Row(target.title, each, after/1024)
		out.Add("idle_5000_kib_per_connection"+target.suffix(), each, "KiB", "resident memory of the proxy's process for one idle connection")
		out.Add("idle_5000_mib"+target.suffix(), after/1024, "MiB", "resident memory of the proxy's process with 5,000 idle connections")
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
