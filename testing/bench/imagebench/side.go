package imagebench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/crsc-io/crsc/control"
	"github.com/crsc-io/crsc/testing/bench"
)

// span is how long after a checkpoint clients are looked at, at most, and the
// time between the end of one and the next.
const span = 1500 * time.Millisecond

// side is one of the two that are compared: a Redis with images, and one without.
type side struct {
	id      string
	publish bool
	server  *bench.Server
	data    *data
	client  *control.Client

	made []made
	// Processor time of the shim with its children, and of the daemon.
	shim, daemon time.Duration
}

// made is a checkpoint, with its image if there is one, and who was a client then.
type made struct {
	*control.Made
	prober *bench.Prober
}

// begin is when its publication began, or could have begun.
func (m *made) begin() time.Time {
	if m.Image != nil {
		return m.Image.Time.Add(-duration(m.Image.TotalMS))
	}
	return m.Checkpoint.Time.Add(duration(m.Checkpoint.TotalMS))
}

// start runs a Redis that makes checkpoints only when it is told to.
func (b *Benchmark) start(ctx context.Context, rig *bench.Rig, id string, publish bool) (*side, error) {
	settings := map[string]string{"checkpoint-interval": "24h", "checkpoint-journal-size": "off", "checkpoint-journal-records": "off",
		"checkpoint-unreplayable": "off", "journal-max-size": "8Gi", "publish": fmt.Sprint(publish), "publish-keep": "1000"}
	server, err := rig.StartRedis(ctx, bench.ServerOptions{ID: id, Pod: id, Settings: settings})
	if err != nil {
		return nil, err
	}
	s := &side{id: id, publish: publish, server: server, client: &control.Client{Dir: filepath.Join(rig.Env.StateDir, rig.Env.Namespace, id)}}
	s.data, err = newData(rig, server, b.heapMB)
	return s, err
}

// round changes data, makes a checkpoint, and lets a client work until its image
// is complete, and for the same time without one.
func (s *side) round(ctx context.Context, rig *bench.Rig, megabytes int) (err error) {
	if err := s.data.overwrite(megabytes); err != nil {
		return err
	}
	prober, err := rig.StartProber(s.server.Addr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, prober.Stop()) }()
	m, err := s.client.Checkpoint(ctx, s.publish)
	if err != nil {
		return err
	}
	one := made{m, prober}
	s.made = append(s.made, one)
	return bench.Pause(ctx, time.Until(one.begin().Add(span)))
}

// clock adds processor time that was used so far, or subtracts it.
func (s *side) clock(rig *bench.Rig, sign time.Duration) error {
	shim, daemon, err := cpu(rig, s.server)
	s.shim += sign * shim
	s.daemon += sign * daemon
	return err
}
