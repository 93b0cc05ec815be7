package paritybench

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// idle is how long a container is left alone before its shim is looked at: a
// shim settles two seconds after its start.
const idle = 4 * time.Second

// Benchmark implements bench.Benchmark.
type Benchmark struct {
	runs, execs, shims, pods int
}

// Name implements bench.Benchmark.
func (b *Benchmark) Name() string { return "parity" }

// Flags implements bench.Benchmark.
func (b *Benchmark) Flags(f *flag.FlagSet) {
	f.IntVar(&b.runs, "runs", 25, "containers to run to their end, of each runtime")
	f.IntVar(&b.execs, "execs", 50, "execs, of each runtime")
	f.IntVar(&b.shims, "shims", 3, "shims whose memory is looked at, of each runtime, and as many of pods")
	f.IntVar(&b.pods, "pods", 40, "pods to start through the CRI, of each runtime; their execs are -execs too; 0: none")
}

// pair holds what was measured in turn: with the stock shim and with ours.
type pair struct{ Stock, Ours bench.Sample }

// of selects one by the name of a runtime or of a handler.
func (p *pair) of(name string) *bench.Sample {
	if name == env.RuntimeCRSC || name == handlerOurs {
		return &p.Ours
	}
	return &p.Stock
}

// outcome is everything that is measured.
type outcome struct {
	run, exec           pair // in milliseconds
	fresh, used, usedRS pair // in MB: PSS before and after the execs, RSS after
	pods                podFigures
}

// Run implements bench.Benchmark.
func (b *Benchmark) Run(ctx context.Context, rig *bench.Rig, out *bench.Results) error {
	image, err := ociimage.Import(ctx, rig.Env, "busybox")
	if err != nil {
		return err
	}
	m := &measurement{env: rig.Env, image: image, o: &outcome{}}
	if m.stock, err = copyStock(rig.Env); err != nil {
		return err
	}
	rig.Say("%d containers of each runtime", b.runs)
	for i := range b.runs + 1 {
		// The first of each fills the page cache.
		if err := m.inTurn(func(runtime string) error { return m.runOnce(ctx, runtime, i > 0) }); err != nil {
			return err
		}
	}
	rig.Say("memory of %d shims and %d execs of each runtime", b.shims, b.execs)
	for i := range b.shims {
		if err := m.look(ctx, i, b.execs/b.shims); err != nil {
			return err
		}
	}
	if b.pods > 0 {
		rig.Say("%d pods of each runtime through the CRI", b.pods)
		pods, err := measurePods(ctx, podOptions{pods: b.pods, execs: b.execs, shims: b.shims, stock: m.stock})
		if err != nil {
			return err
		}
		m.o.pods = *pods
	}
	m.o.report(out)
	return nil
}

type measurement struct {
	env   *env.Env
	image string
	stock string // path of the stock shim, which is a runtime's name as well
	o     *outcome
}

// copyStock copies the stock shim: the pages of a file that other processes on
// the machine have mapped would count less.
func copyStock(e *env.Env) (path string, err error) {
	const name = "containerd-shim-runc-v2"
	data, err := os.ReadFile(filepath.Join(e.ToolsDir, name))
	if err != nil {
		return "", err
	}
	path = filepath.Join(e.Dir, name)
	return path, os.WriteFile(path, data, 0o755)
}

func (m *measurement) inTurn(f func(runtime string) error) error {
	return errors.Join(f(m.stock), f(env.RuntimeCRSC))
}

func (m *measurement) runOnce(ctx context.Context, runtime string, count bool) error {
	start := time.Now()
	if _, err := m.env.Ctr(ctx, "run", "--rm", "--runtime", runtime, m.image, "once", "/bin/true"); err != nil {
		return err
	}
	if s := m.o.run.of(runtime); count {
		*s = append(*s, bench.Millis(time.Since(start)))
	}
	return nil
}

// look starts a container of each runtime, and measures memory and execs.
func (m *measurement) look(ctx context.Context, round, execs int) error {
	id := func(runtime string) string {
		if runtime == env.RuntimeCRSC {
			return fmt.Sprintf("crsc-%d", round)
		}
		return fmt.Sprintf("stock-%d", round)
	}
	err := m.inTurn(func(runtime string) error {
		return m.env.Run(ctx, env.Container{ID: id(runtime), Image: m.image, Runtime: runtime, Args: []string{"sleep", "1000"}})
	})
	if err != nil {
		return err
	}
	if err := bench.Pause(ctx, idle); err != nil {
		return err
	}
	if err := m.inTurn(func(r string) error { return m.memory(id(r), m.o.fresh.of(r), nil) }); err != nil {
		return err
	}
	for i := range execs {
		err := m.inTurn(func(runtime string) error {
			start := time.Now()
			_, err := m.env.Ctr(ctx, "task", "exec", "--exec-id", fmt.Sprintf("x%d", i), id(runtime), "/bin/true")
			s := m.o.exec.of(runtime)
			*s = append(*s, bench.Millis(time.Since(start)))
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := m.inTurn(func(r string) error { return m.memory(id(r), m.o.used.of(r), m.o.usedRS.of(r)) }); err != nil {
		return err
	}
	return m.inTurn(func(runtime string) error { return m.env.DeleteContainer(ctx, id(runtime)) })
}

// memory adds the proportional and, if wanted, the resident set size of a
// container's shim, in MB.
func (m *measurement) memory(id string, pss, rss *bench.Sample) error {
	pid, err := m.env.Shim(id)
	if err != nil {
		return err
	}
	return memory(pid, pss, rss)
}

// memory is that of one process.
func memory(pid int, pss, rss *bench.Sample) error {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return err
	}
	for name, into := range map[string]*bench.Sample{"Pss:": pss, "Rss:": rss} {
		kb, err := rollup(string(data), name)
		if err != nil {
			return err
		}
		if into != nil {
			*into = append(*into, float64(kb)/1000)
		}
	}
	return nil
}

// rollup reads a line of smaps_rollup, proc_pid_smaps(5).
func rollup(text, name string) (kb int, err error) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == name {
			return strconv.Atoi(f[1])
		}
	}
	return 0, fmt.Errorf("smaps_rollup has no %s", name)
}

// figure is a row of the table.
type figure struct {
	name, unit, title string
	p                 pair
}

func (o *outcome) report(out *bench.Results) {
	table := out.Table("What the shim costs a container that does not ask for protection (medians)", "", "stock", "crsc", "ratio")
	figures := []figure{
		{"run", "ms", "ctr run --rm true", o.run},
		{"exec", "ms", "ctr task exec true", o.exec},
		{"pss_idle", "MB", "PSS of the shim, four seconds after the container's start", o.fresh},
		{"pss_used", "MB", "PSS of the shim after the execs", o.used},
		{"rss_used", "MB", "RSS of the shim after the execs", o.usedRS},
	}
	if len(o.pods.Start.Ours) > 0 {
		figures = append(figures, o.pods.figures()...)
	}
	for _, f := range figures {
		out.Add(f.name+"_stock_p50", f.p.Stock.Median(), f.unit, f.title+", containerd-shim-runc-v2")
		out.Add(f.name+"_crsc_p50", f.p.Ours.Median(), f.unit, f.title+", without our annotations")
		ratio := f.p.Ours.Over(f.p.Stock).Median()
		out.Add(f.name+"_ratio", ratio, "ratio", "median of the ratios of neighbours; wanted: at most 1.1")
		table.Row(f.title+", "+f.unit, f.p.Stock.Median(), f.p.Ours.Median(), ratio)
	}
}
