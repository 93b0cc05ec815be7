package paritybench

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/isolate"
	"github.com/crsc-io/crsc/testing/longrun"
)

// PodsCommand is the first argument of the program that measures pods: CRI's
// cgroups have fixed places, so it runs isolated.
const PodsCommand = "pods"

// podsLimit is far more than it takes.
const podsLimit = 10 * time.Minute

// podFigures is what that program writes to its output.
type podFigures struct {
	Start, Exec pair // in milliseconds
	Memory      pair // in MB: PSS before the execs
}

func (f *podFigures) figures() []figure {
	return []figure{
		{"pod_start", "ms", "start of a pod through the CRI", f.Start},
		{"pod_exec", "ms", "ExecSync true", f.Exec},
		{"pod_pss_idle", "MB", "PSS of the shim of a pod, four seconds after its start", f.Memory},
	}
}

// podOptions are the flags of the program.
type podOptions struct {
	pods, execs, shims int
	stock              string // path of the stock shim
}

// args are the program's.
func (o podOptions) args() []string {
	return []string{"-pods", strconv.Itoa(o.pods), "-execs", strconv.Itoa(o.execs), "-shims", strconv.Itoa(o.shims), "-stock", o.stock}
}

func parsePodOptions(args []string) (o podOptions, err error) {
	flags := flag.NewFlagSet(PodsCommand, flag.ContinueOnError)
	flags.IntVar(&o.pods, "pods", 40, "pods to start, of each handler")
	flags.IntVar(&o.execs, "execs", 50, "execs, of each handler")
	flags.IntVar(&o.shims, "shims", 3, "pods of each handler whose shim's memory is looked at")
	flags.StringVar(&o.stock, "stock", "", "`path` of the stock shim")
	err = flags.Parse(args)
	return o, err
}

// measurePods runs the program.
func measurePods(ctx context.Context, o podOptions) (*podFigures, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, podsLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, append([]string{PodsCommand}, o.args()...)...)
	cmd.Stderr = os.Stderr
	// It removes its cgroups then.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	data, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("pods: %w", errors.Join(ctx.Err(), err))
	}
	f := &podFigures{}
	return f, json.Unmarshal(data, f)
}

// Pods measures pods as a program, without its name and PodsCommand in the
// arguments, and returns its exit status.
func Pods(args []string) int {
	inside, status, err := isolate.Enter(isolate.Options{Name: "parity"})
	if inside {
		err = runPods(args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "pods:", err)
		status = max(status, 1)
	}
	return status
}

func runPods(args []string) error {
	o, err := parsePodOptions(args)
	if err != nil {
		return err
	}
	ctx, stop := longrun.Context()
	defer stop()
	n, err := startNode(ctx, o.stock)
	if err != nil {
		return err
	}
	m := &podMeasurement{kubelet: n.kubelet, o: o}
	if err := m.all(ctx); ctx.Err() != nil {
		return ctx.Err()
	} else if err != nil {
		return n.explain(err)
	}
	return json.NewEncoder(os.Stdout).Encode(m.f)
}

type podMeasurement struct {
	*kubelet
	o podOptions
	f podFigures
}

func (m *podMeasurement) all(ctx context.Context) error {
	// The first pods fill the page cache.
	for round := range m.o.pods + 1 {
		if err := m.round(ctx, round); err != nil {
			return err
		}
	}
	return nil
}

// round starts a pod of each handler, looks at some of them, and removes them.
// Which handler comes first changes from round to round.
func (m *podMeasurement) round(ctx context.Context, round int) error {
	order := []string{handlerStock, handlerOurs}
	if round%2 == 1 {
		order = []string{handlerOurs, handlerStock}
	}
	pods := map[string]pod{}
	for _, h := range order {
		start := time.Now()
		p, err := m.start(ctx, fmt.Sprintf("%s-%d", h, round), h)
		if err != nil {
			return err
		}
		if round > 0 {
			add(m.f.Start.of(h), time.Since(start))
		}
		pods[h] = p
	}
	if round > 0 && round <= m.o.shims {
		if err := m.look(ctx, order, pods); err != nil {
			return err
		}
	}
	var err error
	for _, h := range order {
		err = errors.Join(err, m.remove(ctx, pods[h]))
	}
	return err
}

// look measures memory and then execs in the pods of one round.
func (m *podMeasurement) look(ctx context.Context, order []string, pods map[string]pod) error {
	if err := bench.Pause(ctx, idle); err != nil {
		return err
	}
	for _, h := range order {
		pid, err := m.shim(ctx, pods[h])
		if err != nil {
			return err
		}
		if err := memory(pid, m.f.Memory.of(h), nil); err != nil {
			return err
		}
	}
	for i := range m.o.execs / m.o.shims {
		for j := range order {
			h := order[(i+j)%len(order)]
			start := time.Now()
			if err := m.exec(ctx, pods[h]); err != nil {
				return err
			}
			add(m.f.Exec.of(h), time.Since(start))
		}
	}
	return nil
}

func add(s *bench.Sample, d time.Duration) { *s = append(*s, bench.Millis(d)) }
