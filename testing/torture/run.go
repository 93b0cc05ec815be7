package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/crsc-io/crsc/netproxy/netns"
	"github.com/crsc-io/crsc/status"
	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// ErrFailed is returned when some tool did not find the same; the report says
// which.
var ErrFailed = errors.New("a tool noticed the proxy")

// Options say what to run.
type Options struct {
	// Instance is the environment to use, and to destroy at the end.
	Instance string
	// Names are the tools; nil: all.
	Names []string
	// NoKills leaves the runs with kills out.
	NoKills bool
	// Progress receives a line for each tool.
	Progress io.Writer
}

const (
	// patience bounds the wait for a server and for a recovery.
	patience = 60 * time.Second
	// toolLimit bounds one run of a tool.
	toolLimit = 4 * time.Minute
	// killGap is the time between two kills.
	killGap = 700 * time.Millisecond
)

// runner runs a tool against one server.
type runner struct {
	env      *env.Env
	kind     *tool
	id       string
	pod      *env.Netns
	ip       string
	clientNS int
	long     bool
	killed   bool // the server is to be killed
	kills    int  // how often it was
}

func (r *runner) addr(port uint16) string { return net.JoinHostPort(r.ip, fmt.Sprint(port)) }

// tool runs a program in the clients' namespace and returns what it prints.
func (r *runner) tool(ctx context.Context, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, toolLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := netns.Do(r.clientNS, cmd.Start); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %.2000s%.2000s", name, err, errOut.String(), out.String())
	}
	return out.String(), nil
}

// Run runs the tools one after the other. The report is nil if there is nothing
// to report.
//
// Errors: ErrFailed, the context's, and those of the environment.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	err = env.While(ctx, o.Instance, nil, func(e *env.Env) (err error) {
		report, err = play(ctx, e, o)
		return err
	})
	return report, err
}

func play(ctx context.Context, e *env.Env, o Options) (*Report, error) {
	ns, err := os.Open(e.Client().Path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	report := &Report{}
	for _, t := range tools() {
		if o.Names != nil && !slices.Contains(o.Names, t.name) {
			continue
		}
		res := &Result{Name: t.name}
		report.Tools = append(report.Tools, res)
		err := compare(ctx, &runner{env: e, kind: &t, clientNS: int(ns.Fd())}, res, !o.NoKills)
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
		res.Identical = err == nil && res.Direct == res.Proxied && (res.Killed == "" || res.Killed == res.Direct)
		if err != nil {
			res.Failure = err.Error()
		}
		if res.Identical {
			report.Passed++
		} else {
			report.Failed++
		}
		if o.Progress != nil {
			_, _ = fmt.Fprintf(o.Progress, "%s: identical %v, %d kills %s\n", res.Name, res.Identical, res.Kills, res.Failure)
		}
	}
	if report.Failed > 0 || report.Passed == 0 {
		return report, ErrFailed
	}
	return report, nil
}

// compare fills the result.
func compare(ctx context.Context, r *runner, res *Result, kills bool) error {
	kills = kills && !r.kind.noKills
	r.long = kills
	for _, way := range []struct {
		id        string
		found     *string
		protected bool
		killed    bool
	}{{"direct", &res.Direct, false, false}, {"proxied", &res.Proxied, true, false}, {"killed", &res.Killed, true, true}} {
		if way.killed && !kills {
			continue
		}
		if err := r.once(ctx, way.id, way.found, way.protected, way.killed, res); err != nil {
			return fmt.Errorf("%s: %w", way.id, err)
		}
	}
	return nil
}

// once starts a server in a pod of its own and runs the tool.
func (r *runner) once(ctx context.Context, way string, found *string, protected, killed bool, res *Result) (err error) {
	r.id = r.kind.name + "-" + way
	if r.pod, err = r.env.MakePod("torture"); err != nil {
		return err
	}
	r.ip = r.pod.IP4.String()
	defer func() { err = errors.Join(err, r.env.RemovePod("torture")) }()
	if err := r.start(ctx, protected); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.env.DeleteContainer(context.WithoutCancel(ctx), r.id)) }()
	if err := r.awaitServer(ctx); err != nil {
		return err
	}
	r.kills, r.killed = 0, killed
	calmed := func() error { return nil }
	if !r.kind.calm {
		calmed = r.strike(ctx, killGap)
	}
	*found, err = r.kind.run(ctx, r)
	err = errors.Join(err, calmed())
	if killed {
		res.Kills = r.kills
		if err == nil && r.kills == 0 {
			err = errors.New("the tool ended before the first kill")
		}
	}
	if protected && err == nil {
		err = r.checkProtected()
	}
	return err
}

func (r *runner) start(ctx context.Context, protected bool) error {
	if _, err := ociimage.Import(ctx, r.env, r.kind.image); err != nil {
		return err
	}
	c := env.Container{ID: r.id, Image: ociimage.Ref(r.kind.image), Netns: r.pod.Path, Args: r.kind.args}
	if protected {
		c.Annotations = map[string]string{
			"crsc.io/checkpoint-restore": "true", "crsc.io/checkpoint-interval": "500ms", "crsc.io/recovery-budget": "unlimited",
			"crsc.io/volumes": "snapshot", "crsc.io/journal-max-size": "4Gi",
		}
	}
	if r.kind.program {
		app := filepath.Join(r.env.Dir, "torture-server")
		cmd := exec.CommandContext(ctx, "go", "build", "-o", app, "./testing/torture/server")
		cmd.Dir = r.env.Root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build the server: %w: %s", err, out)
		}
		c.Flags = []string{"--mount=type=bind,src=" + app + ",dst=/app,options=rbind:ro"}
	}
	return r.env.Run(ctx, c)
}

// awaitServer waits until connections are accepted and stay open for a moment:
// a database refuses them after accepting while it starts.
func (r *runner) awaitServer(ctx context.Context) error {
	at := netip.AddrPortFrom(r.pod.IP4, r.kind.port).String()
	for deadline := time.Now().Add(patience); ; {
		var c net.Conn
		err := netns.Do(r.clientNS, func() (err error) {
			c, err = net.DialTimeout("tcp", at, time.Second)
			return err
		})
		if err == nil {
			c.Close()
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server does not serve: %w", err)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *runner) status() (*status.Status, error) {
	return status.Read(filepath.Dir(r.env.StatusFile(r.id)))
}

// checkProtected makes sure that it was the proxy that was measured.
func (r *runner) checkProtected() error {
	st, err := r.status()
	if err == nil && !st.Protected {
		err = fmt.Errorf("the server is not protected: %s", st.Reason)
	}
	return err
}

// strike begins, after a while, to kill the server's init again and again, each
// time when it has recovered, if that is to be done. The function it returns ends
// that and says what went wrong.
func (r *runner) strike(ctx context.Context, after time.Duration) (calm func() error) {
	if !r.killed {
		return func() error { return nil }
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		var err error
		defer func() { done <- err }()
		for pause := after; err == nil; pause = killGap {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			err = r.kill()
		}
	}()
	return func() error {
		cancel()
		return <-done
	}
}

// kill ends the init and waits for the recovery, even if the tool has ended.
func (r *runner) kill() error {
	st, err := r.status()
	if err != nil {
		return err
	}
	if st.Phase != "running" || st.Pid == 0 {
		return nil
	}
	if err := syscall.Kill(st.Pid, syscall.SIGKILL); err != nil {
		return err
	}
	r.kills++
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		now, err := r.status()
		if err != nil {
			return err
		}
		if now.RecoveryCount > st.RecoveryCount && now.Phase == "running" {
			return nil
		}
		if now.Phase == "stopped" {
			return fmt.Errorf("not recovered: %s", now.Reason)
		}
	}
	return errors.New("not recovered in time")
}
