package recovery

import (
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/sirupsen/logrus"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/shim/lifecycle"

	"github.com/crsc-io/crsc/status"
)

// prefix of the annotations that are ours.
const prefix = "crsc.io/"

// containerType is the CRI's annotation that tells pause containers.
const containerType = "io.kubernetes.cri.container-type"

// Factory makes the guards of one shim, and keeps what containers of its pod
// leave to those that take their place.
type Factory struct {
	mu      sync.Mutex         // guards all below
	estates map[string]*estate // by place
	refused map[string]error   // why there is none, where there might be
	closed  bool
}

// NewFactory returns a factory that keeps nothing yet.
func NewFactory() *Factory {
	return &Factory{estates: map[string]*estate{}, refused: map[string]error{}}
}

// NewGuard is a lifecycle.GuardFactory. Containers that neither their annotations
// nor the node's defaults want protected, and pause containers, get no guard.
//
// Errors: malformed annotations, as errdefs.ErrInvalidArgument.
func (f *Factory) NewGuard(_ context.Context, c *lifecycle.Container) (lifecycle.Guard, error) {
	place := placeOf(c)
	legacy, refused := f.take(place)
	g, err := newGuard(c)
	if g == nil {
		// Whatever comes now is not to meet the proxy of the one before it.
		if eerr := legacy.end(); eerr != nil {
			logrus.WithError(eerr).WithField("id", c.ID()).Warn("what the container before has left was not removed")
		}
		return nil, err
	}
	g.factory, g.seat, g.legacy = f, place, legacy
	if refused != nil {
		g.status.NotResumed = refused.Error()
	}
	return g, nil
}

func newGuard(c *lifecycle.Container) (*guard, error) {
	ours := map[string]string{}
	for k, v := range c.Annotations() {
		if strings.HasPrefix(k, prefix) {
			ours[k] = v
		}
	}
	if c.Annotations()[containerType] == "sandbox" {
		return nil, nil
	}
	node, err := config.Load("")
	if err != nil {
		if len(ours) == 0 {
			return nil, nil // who has not asked is not told
		}
		// The administrator's mistake, not the user's: the container runs.
		logrus.WithError(err).WithField("id", c.ID()).Error("unprotected: the node's configuration can't be read")
		return nil, nil
	}
	cfg, err := node.Container(ours)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	pod := status.PodOf(c.Annotations())
	if !cfg.Enabled || pod != nil && !cfg.ProtectsContainer(pod.Container) {
		return nil, nil
	}
	dir, err := stateDir(cfg.StateDir, c.Namespace(), c.ID())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	g := &guard{
		cfg: cfg, c: c, dir: dir,
		log:    logrus.WithFields(logrus.Fields{"id": c.ID(), "namespace": c.Namespace()}),
		exits:  make(chan lifecycle.Exit, 16),
		budget: budget{limit: cfg.Budget},
		status: status.Status{ID: c.ID(), Namespace: c.Namespace(), Phase: "created", ShimPid: os.Getpid(), Pod: pod},
	}
	if g.status.ShimStarted, err = startOf(os.Getpid()); err != nil {
		g.log.WithError(err).Debug("the shim's time of start is not known")
	}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.sched = newScheduler(cfg, g.checkpoint, g.checkpointFailed, func() amount { return g.moment().journaled })
	return g, nil
}

// tableName derives the name of the nft table from the container's identity;
// several containers may share a network namespace.
func tableName(namespace, id string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(namespace + "/" + id))
	return fmt.Sprintf("%012x", h.Sum64()&(1<<48-1))
}

func orderKind(o config.Order) order.Kind {
	switch o {
	case config.OrderTracepoint:
		return order.Tracepoint
	case config.OrderSerial:
		return order.Serial
	}
	return order.Auto
}

// excluded lists the single ports of the ranges.
func excluded(ranges []config.PortRange) []uint16 {
	var out []uint16
	for _, r := range ranges {
		for p := int(r.First); p <= int(r.Last); p++ {
			out = append(out, uint16(p))
		}
	}
	return out
}
