package workloads

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// patience bounds each wait for what takes well under a second when all is well.
const patience = 30 * time.Second

// ErrFailed is returned when some workload has not come through as it should;
// the report says which.
var ErrFailed = errors.New("a workload failed")

// Run runs the workloads one after the other. The report is nil if there is
// nothing to report.
//
// Errors: ErrFailed, the context's, and those of the environment.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	o, err = o.defaultsAndValidate()
	if err != nil {
		return nil, err
	}
	err = env.While(ctx, o.Instance, nil, func(e *env.Env) (err error) {
		report, err = playAll(ctx, e, o)
		return err
	})
	return report, err
}

func playAll(ctx context.Context, e *env.Env, o Options) (*Report, error) {
	report := &Report{Workloads: map[string]*Result{}}
	for _, w := range table() {
		if !slices.Contains(o.Names, w.name) {
			continue
		}
		r := &Result{}
		report.Workloads[w.name] = r
		s := &site{env: e, pod: e.Pod(), w: &w, id: w.name}
		if err := s.play(ctx, &o, r); err != nil {
			if ctx.Err() != nil {
				return report, ctx.Err()
			}
			r.Failure = err.Error()
		}
		report.add(r)
		_, _ = fmt.Fprintf(o.Progress, "%s: %s\n", w.name, r)
	}
	if report.Failed > 0 {
		return report, ErrFailed
	}
	return report, nil
}

// play runs one workload from its start to its end.
func (s *site) play(ctx context.Context, o *Options, r *Result) (err error) {
	if err := s.create(ctx, o); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.env.DeleteContainer(context.WithoutCancel(ctx), s.id)) }()
	begun := time.Now()
	c, err := s.startClients(ctx)
	if err != nil {
		return err
	}
	connected := time.Now()
	if _, err := s.await(ctx, func(st *status.Status) bool {
		return st.Checkpoints.Last != nil && st.Checkpoints.Last.Time.After(connected)
	}); err != nil {
		return fmt.Errorf("no checkpoint: %w", err)
	}
	for range o.Kills {
		if err = pause(ctx, time.Duration((0.5+rand.Float64())*float64(o.Gap))); err != nil {
			break
		}
		if err = s.kill(ctx, r); err != nil {
			break
		}
		if err = c.Check(ctx); err != nil {
			r.Disagreements++
			err = fmt.Errorf("after kill %d: %w", r.Kills, err)
			break
		}
		r.Checks++
	}
	requests, failed, serr := c.Stop(ctx)
	r.Requests, r.ClientErrors, r.Seconds = requests, failed, time.Since(begun).Seconds()
	if st, rerr := status.Read(filepath.Dir(s.env.StatusFile(s.id))); rerr == nil {
		r.from(st)
	}
	return errors.Join(err, serr)
}

// create starts the container.
func (s *site) create(ctx context.Context, o *Options) error {
	if _, err := ociimage.Import(ctx, s.env, s.w.image); err != nil {
		return err
	}
	c := env.Container{
		ID: s.id, Image: ociimage.Ref(s.w.image), Netns: s.pod.Path, Args: s.w.args,
		Annotations: map[string]string{
			"crsc.io/checkpoint-restore": "true", "crsc.io/checkpoint-interval": o.Interval.String(),
			"crsc.io/recovery-budget": "unlimited", "crsc.io/volumes": "snapshot",
		},
	}
	if s.w.program != "" || s.w.script != "" {
		app, err := s.makeApp(ctx)
		if err != nil {
			return err
		}
		c.Flags = append(c.Flags, "--mount=type=bind,src="+app+",dst=/app,options=rbind:ro")
	}
	if s.w.volume {
		dir := filepath.Join(s.env.Dir, "volume-"+s.w.name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		c.Flags = append(c.Flags, "--mount=type=bind,src="+dir+",dst=/volume,options=rbind:rw")
	}
	return s.env.Run(ctx, c)
}

// makeApp makes the file that is mounted as /app.
func (s *site) makeApp(ctx context.Context) (string, error) {
	app := filepath.Join(s.env.Dir, "app-"+s.w.name)
	if s.w.script != "" {
		return app, os.WriteFile(app, []byte(s.w.script), 0o644)
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", app, s.w.program)
	build.Dir, build.Env = s.env.Root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", s.w.program, err, out)
	}
	return app, nil
}

// startClients repeats until the service serves.
func (s *site) startClients(ctx context.Context) (clients, error) {
	for deadline := time.Now().Add(patience); ; {
		c, err := s.w.start(ctx, s)
		if err == nil {
			return c, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("the service does not serve: %w", err)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// kill kills the init as a bug would, and waits for the recovery.
func (s *site) kill(ctx context.Context, r *Result) error {
	before, err := s.await(ctx, func(st *status.Status) bool { return st.Phase == "running" })
	if err != nil {
		return err
	}
	pid, _, err := s.env.Task(ctx, s.id)
	if err != nil {
		return err
	}
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || !strings.Contains(string(groups), "/"+s.id) {
		return fmt.Errorf("pid %d is not in the container's cgroup: %w", pid, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill %d: %w", pid, err)
	}
	r.Kills++
	_, err = s.await(ctx, func(st *status.Status) bool {
		return st.RecoveryCount > before.RecoveryCount && st.Phase == "running" || st.Phase == "stopped"
	})
	if err != nil {
		return fmt.Errorf("kill %d was not recovered: %w", r.Kills, err)
	}
	return nil
}

// await waits until the status satisfies a condition. A container that has
// stopped is an error.
func (s *site) await(ctx context.Context, cond func(*status.Status) bool) (*status.Status, error) {
	dir := filepath.Dir(s.env.StatusFile(s.id))
	for deadline := time.Now().Add(patience); ; {
		st, err := status.Read(dir)
		if err == nil && cond(st) {
			if st.Phase == "stopped" {
				return st, fmt.Errorf("the exit was reported: %s", st.Reason)
			}
			return st, nil
		}
		if time.Now().After(deadline) {
			if err == nil {
				err = fmt.Errorf("the status is %s, protected %t %s, last failure %q", st.Phase, st.Protected, st.Reason, st.Checkpoints.LastError)
			}
			return nil, err
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// pause returns early, with an error, when ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
