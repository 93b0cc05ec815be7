package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/layer"
	"github.com/crsc-io/crsc/oci"
	"github.com/crsc-io/crsc/status"
)

const (
	// firstPublishBackoff doubles with each failed publication, up to
	// maxPublishBackoff.
	firstPublishBackoff = time.Second
	maxPublishBackoff   = 5 * time.Minute
	// headroom has to be free where the checkpoints are: images must not take
	// the room that protection needs.
	headroom = 64 << 20
	// annotationConnections is the number of connections in the cut.
	annotationConnections = "crsc.io/connections"
)

// errNoRoom is a reason not to publish.
var errNoRoom = errors.New("the disk is nearly full")

// publisher makes images of checkpoints, in the background, one at a time and
// always of the latest. A nil one does nothing.
type publisher struct {
	dir     string // <state>/publish
	trees   []string
	work    func(ctx context.Context) (*imageWork, error)
	make    func(ctx context.Context, w *imageWork) (oci.Published, error)
	made    func(status.Image)
	failed  func(err error, again time.Duration)
	wake    chan struct{}
	linked  string        // a checkpoint that is being published
	memory  string        // its images, if they are in memory; empty: they never are
	rootfs  bool          // trees[0] is the writable layer
	mu      sync.Mutex    // guards everything below
	pending *checkpoint   // nil: the latest has been taken
	working bool          // one is being published
	rested  chan struct{} // closed when that has ended, in whatever way
}

func newPublisher(dir string, f *files) *publisher {
	p := &publisher{
		dir: dir, linked: filepath.Join(dir, "checkpoint"), rootfs: f.upper, make: makeImageInChild,
		wake: make(chan struct{}, 1), rested: make(chan struct{}),
	}
	for _, t := range f.trees {
		p.trees = append(p.trees, t.name)
	}
	return p
}

// offer says that a checkpoint is complete. It does not block.
func (p *publisher) offer(cp *checkpoint) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.pending = cp
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *publisher) take() *checkpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	cp := p.pending
	p.pending, p.working = nil, cp != nil
	return cp
}

// rest says that what was taken is published, or put back.
func (p *publisher) rest() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.working = false
	close(p.rested)
	p.rested = make(chan struct{})
}

// flush waits until all that was offered is published. A nil publisher has
// nothing to do.
//
// Errors: the context's.
func (p *publisher) flush(ctx context.Context) error {
	if p == nil {
		return nil
	}
	for {
		p.mu.Lock()
		idle, rested := p.pending == nil && !p.working, p.rested
		p.mu.Unlock()
		if idle {
			return nil
		}
		select {
		case <-rested:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// run publishes until ctx ends.
func (p *publisher) run(ctx context.Context) {
	// A child ends with the thread that has started it.
	runtime.LockOSThread()
	var work *imageWork
	backoff := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		cp := p.take()
		if cp == nil {
			continue
		}
		var err error
		if work == nil {
			work, err = p.work(ctx)
		}
		if err == nil {
			err = p.publish(ctx, *work, cp)
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			backoff = 0
			p.rest()
			continue
		}
		backoff = min(max(2*backoff, firstPublishBackoff), maxPublishBackoff)
		p.failed(fmt.Errorf("checkpoint %d: %w", cp.seq, err), backoff)
		p.retry(cp)
		p.rest()
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
		}
	}
}

// retry puts a checkpoint back, unless there is a later one.
func (p *publisher) retry(cp *checkpoint) {
	p.mu.Lock()
	later := p.pending != nil
	if !later {
		p.pending = cp
	}
	p.mu.Unlock()
	if !later {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// publish makes one image. It is no failure if the checkpoint is gone by now:
// then there are later ones.
func (p *publisher) publish(ctx context.Context, work imageWork, cp *checkpoint) error {
	begun := time.Now()
	linked, err := p.link(cp)
	defer func() { _ = p.unlink() }() // again before the next
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = p.room(linked)
	}
	if err != nil {
		return err
	}
	work.Checkpoint = oci.Checkpoint{
		Dir: p.linked, Images: linked, Sequence: cp.seq, Time: cp.at,
		Annotations: map[string]string{annotationConnections: strconv.Itoa(len(cp.cut.Sockets))},
	}
	if p.rootfs {
		work.Layer = filepath.Join(p.linked, p.trees[0])
	}
	out, err := p.make(ctx, &work)
	if out.Name == "" {
		return err
	}
	p.made(status.Image{
		Name: out.Name, Digest: out.Target.Digest.String(), Sequence: cp.seq, Time: time.Now(),
		TotalMS: status.Milliseconds(time.Since(begun)), Chain: out.Chain,
		Bytes: out.Bytes, ChangedBytes: out.ChangedBytes, MemoryBytes: out.MemoryBytes,
	})
	return err
}

// link gives the files of a checkpoint further names, so that it may be removed
// while it is being published. It returns where the images are.
func (p *publisher) link(cp *checkpoint) (linked string, err error) {
	if err := p.unlink(); err != nil {
		return "", err
	}
	images := cp.images()
	if linked = filepath.Join(p.linked, "images"); images != cp.imagesOnDisk() {
		linked = p.memory
	}
	if err := errors.Join(os.MkdirAll(p.linked, 0o700), os.Mkdir(linked, 0o700)); err != nil {
		return "", err
	}
	list, err := os.ReadDir(images)
	if err != nil {
		return "", err
	}
	for _, e := range list {
		if !e.Type().IsRegular() {
			continue
		}
		if err := os.Link(filepath.Join(images, e.Name()), filepath.Join(linked, e.Name())); err != nil {
			return "", err
		}
	}
	for _, name := range p.trees {
		if err := layer.Link(filepath.Join(cp.dir, name), filepath.Join(p.linked, name)); err != nil {
			return "", err
		}
	}
	return linked, os.Link(cp.cutFile(), filepath.Join(p.linked, "cut.json"))
}

// unlink removes what link made.
func (p *publisher) unlink() error {
	err := os.RemoveAll(p.linked)
	if p.memory != "" {
		err = errors.Join(err, os.RemoveAll(p.memory))
	}
	return err
}

// room looks whether protection would still have room if the checkpoint were
// stored once more.
func (p *publisher) room(images string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(p.dir, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: p.dir, Err: err}
	}
	need := int64(headroom)
	count := func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		fi, err := e.Info()
		if err == nil {
			need += fi.Size()
		}
		return err
	}
	err := filepath.WalkDir(p.linked, count)
	if err == nil && images == p.memory {
		err = filepath.WalkDir(images, count)
	}
	if free := int64(st.Bavail) * st.Bsize; err == nil && free < need {
		return fmt.Errorf("%w: %d MiB are free where the checkpoints are, %d MiB should be", errNoRoom, free>>20, need>>20)
	}
	return err
}
