package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/crsc-io/crsc/control"
	"github.com/crsc-io/crsc/oci"
	"github.com/crsc-io/crsc/status"
)

// causeOperator is the cause of checkpoints that are asked for through the
// control socket.
const causeOperator = "operator"

// imageAgain is how often to look whether an image is there.
const imageAgain = 10 * time.Millisecond

// operator is what can be asked for through the control socket.
type operator struct{ g *guard }

var _ control.Handler = operator{}

// listen opens the control socket. A container without one is protected all the
// same.
func (g *guard) listen() {
	s, err := control.Serve(g.dir, operator{g})
	if err != nil {
		g.log.WithError(err).Warn("the container can't be asked for anything")
		return
	}
	g.mu.Lock()
	if g.ctx.Err() == nil {
		g.control, s = s, nil
	}
	g.mu.Unlock()
	if err := s.Close(); err != nil { // the container is being deleted
		g.log.WithError(err).Warn("close the control socket")
	}
}

// listenAgain is for a state directory that was removed and made anew.
func (g *guard) listenAgain() error {
	g.mu.Lock()
	old := g.control
	g.control = nil
	g.mu.Unlock()
	err := old.Close()
	if mkErr := mkdirPrivate(g.dir); mkErr != nil {
		return errors.Join(err, mkErr)
	}
	g.listen()
	return err
}

// Status implements control.Handler.
func (o operator) Status(context.Context) (*status.Status, error) {
	if o.g.isReady() {
		o.g.writeStatus()
	}
	s := o.g.snapshotStatus()
	return &s, nil
}

func (g *guard) snapshotStatus() status.Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status.Clone()
}

// Checkpoint implements control.Handler.
func (o operator) Checkpoint(ctx context.Context, image bool) (*control.Made, error) {
	if image && !o.g.cfg.Publish {
		return nil, errors.New("checkpoints of this container are not published: crsc.io/publish is false")
	}
	if err := o.g.CheckpointNow(ctx, causeOperator); err != nil {
		return nil, err
	}
	s := o.g.snapshotStatus()
	made := &control.Made{Checkpoint: *s.Checkpoints.Last}
	if !image {
		return made, nil
	}
	var err error
	made.Image, err = o.g.awaitImage(ctx, made.Checkpoint.Sequence, s.Images.Failed)
	return made, err
}

// awaitImage waits for the image of a checkpoint, or of a later one. failed is
// how many publications had failed before.
func (g *guard) awaitImage(ctx context.Context, sequence uint64, failed int) (*status.Image, error) {
	for {
		images := g.snapshotStatus().Images
		switch {
		case images.Last != nil && images.Last.Sequence >= sequence:
			return images.Last, nil
		case images.Failed > failed && images.LastError != "":
			return nil, fmt.Errorf("checkpoint %d is complete, but has no image yet: %s", sequence, images.LastError)
		}
		select {
		case <-time.After(imageAgain):
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-g.ctx.Done():
			return nil, fmt.Errorf("checkpoint %d is complete, but has no image: %w", sequence, ErrStopped)
		}
	}
}

// Images implements control.Handler.
func (o operator) Images(ctx context.Context) (out []control.Image, err error) {
	err = withImages(func(s *oci.Store) error {
		list, err := s.Catalog(ctx, o.g.c.Namespace(), o.g.c.ID())
		for _, e := range list {
			out = append(out, control.Image{
				Name: e.Name, Tag: e.Tag(), Digest: e.Target.Digest.String(), Sequence: e.Sequence, Time: e.Time,
				Pinned: e.Pinned, Bytes: e.Bytes, OwnBytes: e.OwnBytes,
			})
		}
		return err
	})
	return out, err
}

// Pin implements control.Handler.
func (o operator) Pin(ctx context.Context, tag string, pinned bool) error {
	return withImages(func(s *oci.Store) error {
		return s.Pin(ctx, o.g.c.Namespace(), o.g.c.ID(), tag, pinned)
	})
}

// withImages connects to containerd for as long as fn runs.
func withImages(fn func(*oci.Store) error) error {
	address := os.Getenv(grpcAddress)
	if address == "" {
		return errNoAddress
	}
	s, err := oci.Dial(address)
	if err != nil {
		return err
	}
	return errors.Join(fn(s), s.Close())
}
