package demo

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
	"github.com/crsc-io/crsc/testing/load"
)

const (
	containerID = "redis"
	redisPort   = 6379
	// readyTimeout bounds each wait for something that takes well under a
	// second when all is well.
	readyTimeout = 30 * time.Second
)

// run is one run of the demo.
type run struct {
	o       Options
	env     *env.Env
	load    *load.Load
	crash   []crash
	watch   *watch
	printed time.Duration // when the last progress line was
	start   time.Time
}

// Run does everything from bringing the environment up to destroying it. The
// report is nil if there was nothing to report. The error is ErrFailed if the
// figures are bad, ctx's if it was cancelled.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	o, err = o.defaultsAndValidate()
	if err != nil {
		return nil, err
	}
	r := &run{o: o}
	r.say("starting a private containerd and Redis")
	err = env.While(ctx, o.Instance, o.Tools, func(e *env.Env) (err error) {
		r.env = e
		report, err = r.all(ctx)
		return err
	})
	return report, err
}

func (r *run) all(ctx context.Context) (*Report, error) {
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{r.check, r.play, r.check} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	result, err := r.load.Stop(ctx)
	r.say("")
	report := r.report(result)
	if err != nil {
		report.Faults = append(report.Faults, err.Error())
	}
	if len(report.Faults) > 0 {
		return report, ErrFailed
	}
	return report, nil
}

func (r *run) check(ctx context.Context) error {
	if r.o.Check == nil {
		return nil
	}
	return r.o.Check(ctx, r.env, containerID)
}

// prepare returns when Redis serves, and is protected if it has to be.
func (r *run) prepare(ctx context.Context) error {
	image, err := ociimage.Import(ctx, r.env, "redis")
	if err != nil {
		return err
	}
	err = r.env.Run(ctx, env.Container{
		ID: containerID, Image: image, Runtime: r.o.Runtime, Netns: r.env.Pod().Path, Flags: r.o.Flags,
		Annotations: map[string]string{
			"crsc.io/checkpoint-restore":  "true",
			"crsc.io/checkpoint-interval": r.o.Interval.String(),
			"crsc.io/recovery-budget":     "unlimited",
		},
	})
	if err != nil {
		return err
	}
	if r.load, err = r.startLoad(ctx); err != nil {
		return err
	}
	r.start = time.Now()
	if r.o.Watch {
		if r.watch, err = newWatch(r.env); err != nil {
			return err
		}
	}
	if r.o.Runtime == env.RuntimeCRSC {
		return r.awaitProtection(ctx)
	}
	return nil
}

// startLoad repeats until Redis listens.
func (r *run) startLoad(ctx context.Context) (*load.Load, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		l, err := load.Start(ctx, load.Options{
			Netns: r.env.Client().Path, Target: netip.AddrPortFrom(r.env.Pod().IP4, redisPort),
			Connections: r.o.Connections, Rate: r.o.Rate, ReconnectEvery: r.o.ReconnectEvery, Pipeline: r.o.Pipeline,
		})
		if err == nil {
			return l, nil
		}
		if perr := pause(ctx, 20*time.Millisecond); perr != nil {
			return nil, fmt.Errorf("the server does not serve: %w", err)
		}
	}
}

func (r *run) awaitProtection(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		s, err := readStatus(r.env.StatusFile(containerID))
		if err == nil && s.Protected {
			return nil
		}
		if perr := pause(ctx, 20*time.Millisecond); perr != nil {
			if err == nil {
				err = fmt.Errorf("unprotected: %s", s.Reason)
			}
			return fmt.Errorf("%w: the container is not protected: %w", ErrFailed, err)
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
