package matrix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/crsc-io/crsc/testing/demo"
	"github.com/crsc-io/crsc/testing/env"
)

// instance is the environment's name.
const instance = "matrix"

// Cell is the result of one pair.
type Cell struct {
	Pair
	OK bool `json:"ok"`
	// Error says what went wrong, in words.
	Error        string  `json:"error,omitempty"`
	Recovered    int     `json:"recovered"`
	ClientErrors int64   `json:"client_errors"`
	Lost         int64   `json:"lost"`
	Doubled      int64   `json:"doubled"`
	StallMS      float64 `json:"stall_ms"` // the worst
	Seconds      float64 `json:"seconds"`
}

// Install builds what is missing of the pairs, with testing/env/install.
func Install(ctx context.Context, root string, pairs []Pair) error {
	args := []string{"matrix"}
	for _, p := range pairs {
		args = append(args, "containerd-"+p.Containerd, "runc-"+p.Runc)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(root, "testing", "env", "install"), args...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("testing/env/install matrix: %w", err)
	}
	return nil
}

// Run runs one pair; what goes wrong is told in the cell.
func Run(ctx context.Context, p Pair) Cell {
	start := time.Now()
	c := Cell{Pair: p}
	report, err := try(ctx, p)
	if report != nil {
		c.Recovered, c.ClientErrors, c.Lost, c.Doubled = len(report.Recoveries), report.ClientErrors, report.Lost, report.Doubled
		c.StallMS = report.StallMS.Max
		if len(report.Faults) > 0 {
			err = fmt.Errorf("%w: %s", err, strings.Join(report.Faults, "; "))
		}
	}
	if err != nil {
		c.Error = err.Error()
	}
	c.OK, c.Seconds = err == nil, time.Since(start).Seconds()
	return c
}

func try(ctx context.Context, p Pair) (*demo.Report, error) {
	e, err := env.Locate(instance)
	if err != nil {
		return nil, err
	}
	return demo.Run(ctx, demo.Options{
		Instance: instance, Tools: p.dirs(e.ToolsDir), Kills: 2, Connections: 8, Rate: 400,
		Duration: 3 * time.Second, Interval: time.Second,
		Check: func(ctx context.Context, e *env.Env, id string) error { return check(ctx, e, id, p) },
	})
}

// check makes sure that the pair is what runs, and that exec works.
func check(ctx context.Context, e *env.Env, id string, p Pair) error {
	server, err := e.Ctr(ctx, "version")
	if err != nil {
		return err
	}
	if strings.Count(server, p.Containerd) != 2 { // the client's and the server's
		return fmt.Errorf("this is not containerd %s: %s", p.Containerd, server)
	}
	runc, err := e.Command(ctx, "runc", "--version").Output()
	if err != nil {
		return fmt.Errorf("runc --version: %w", err)
	}
	if !strings.Contains(string(runc), strings.TrimPrefix(p.Runc, "v")) {
		return fmt.Errorf("this is not runc %s: %s", p.Runc, runc)
	}
	return execute(ctx, e, id)
}

// execute repeats when nothing is printed: ctr may end before it has copied the
// output, with the stock shim in 6 of 150 calls.
func execute(ctx context.Context, e *env.Env, id string) error {
	for range 5 {
		out, err := e.Ctr(ctx, "task", "exec", "--exec-id", fmt.Sprintf("x%d", time.Now().UnixNano()), id, "redis-cli", "ping")
		if err != nil {
			return err
		}
		switch strings.TrimSpace(out) {
		case "PONG":
			return nil
		case "":
		default:
			return fmt.Errorf("exec printed %q", out)
		}
	}
	return errors.New("exec printed nothing, five times")
}
