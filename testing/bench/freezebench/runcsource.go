package freezebench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/stats"

	"github.com/crsc-io/crsc/testing/bench"
	"github.com/crsc-io/crsc/testing/env"
)

// runcRoot is where containerd's runc shim keeps runc's state.
const runcRoot = "/run/containerd/runc"

// criuConfig makes CRIU lock the network with nftables: its other way, iptables,
// needs programs that many hosts no longer have.
const criuConfig = "network-lock nftables\n"

// runcSource calls runc checkpoint on a container of the stock shim.
type runcSource struct{ interval time.Duration }

// failures: the first one ends the benchmark.
func (f *runcSource) failures() (int, string) { return 0, "" }

func (f *runcSource) prefix() string { return "runc-" }

func (f *runcSource) stop(ctx context.Context, _ *bench.Rig, s *bench.Server) error {
	return s.Remove(ctx)
}

func (f *runcSource) start(ctx context.Context, rig *bench.Rig, id string) (*bench.Server, error) {
	file := filepath.Join(rig.Env.Dir, "criu-of-runc.conf")
	if err := os.WriteFile(file, []byte(criuConfig), 0o600); err != nil {
		return nil, err
	}
	return rig.StartRedis(ctx, bench.ServerOptions{ID: id, Pod: id, Runtime: env.RuntimeRunc,
		Annotations: map[string]string{"org.criu.config": file}})
}

func (f *runcSource) collect(ctx context.Context, rig *bench.Rig, s *bench.Server, count int) ([]checkpoint, error) {
	var out []checkpoint
	for len(out) < count {
		if err := bench.Pause(ctx, f.interval); err != nil {
			return nil, err
		}
		c, err := f.checkpoint(ctx, rig, s)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

func (f *runcSource) checkpoint(ctx context.Context, rig *bench.Rig, s *bench.Server) (checkpoint, error) {
	dir, err := os.MkdirTemp(rig.Env.Dir, "runc-images-")
	if err != nil {
		return checkpoint{}, err
	}
	defer os.RemoveAll(dir) // in the environment, which goes away too
	c := checkpoint{begun: time.Now()}
	cmd := rig.Env.Command(ctx, "runc", "--root", filepath.Join(runcRoot, rig.Env.Namespace), "checkpoint",
		"--leave-running", "--tcp-established", "--image-path", dir, "--work-path", dir, s.ID)
	if said, err := cmd.CombinedOutput(); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "dump.log"))
		return c, fmt.Errorf("runc checkpoint: %w: %s\n%s", err, said, tail(log, 2000))
	}
	c.total = bench.Millis(time.Since(c.begun))
	d, err := os.Open(dir)
	if err != nil {
		return c, err
	}
	defer d.Close()
	st, err := stats.CriuGetDumpStats(d)
	if err != nil {
		return c, fmt.Errorf("CRIU's statistics: %w", err)
	}
	// Microseconds; the same sum as the shim's frozen_ms.
	c.frozen = float64(st.GetFreezingTime()+st.GetFrozenTime()) / 1000
	return c, nil
}

func tail(text []byte, n int) []byte { return text[max(0, len(text)-n):] }
