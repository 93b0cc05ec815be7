package oci

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/stretchr/testify/require"
)

// everyKill calls kill for each call of the store from the first-th on, until
// there is none that could fail.
func everyKill(t *testing.T, first int, kill func(f *faults, at int) bool) {
	t.Helper()
	at := first
	for kill(&faults{}, at) {
		at++
	}
	require.Greater(t, at, first+5)
}

// lateKills leaves out what TestEveryStep walks: it begins just before an image
// gets a name.
func lateKills(t *testing.T, kill func(f *faults, at int) bool) {
	t.Helper()
	var f faults
	require.False(t, kill(&f, 0))
	require.Greater(t, f.named, 10)
	everyKill(t, f.named-2, kill)
}

// killed publishes and is killed at a step, at 0 never. The second result is
// false if there was no such step.
func (f *faults) killed(t *testing.T, p *Publisher, cp Checkpoint, at int) (Published, bool) {
	t.Helper()
	f.calls, f.at, f.named = 0, at, 0
	out, err := p.Publish(t.Context(), cp)
	f.at = 0
	if at == 0 || f.calls < at {
		require.NoError(t, err)
		return out, false
	}
	require.ErrorIs(t, err, errFault, "step %d", at)
	return out, true
}

// TestKilledRenaming kills a publication that takes the name of a pinned image
// of an earlier container: that is never without a name, and has one in the end.
func TestKilledRenaming(t *testing.T) {
	lateKills(t, func(fault *faults, at int) bool {
		d := newDaemon(t)
		o := Options{Store: fault.wrap(d.Store), Retention: Retention{Last: 2}}
		earlier, dir := newFake(20), tempDir(t)
		out, err := d.publisher(Options{}).Publish(t.Context(), earlier.write(t, dir))
		require.NoError(t, err)
		require.NoError(t, d.Pin(d.ctx, testNamespace, testID, "1", true))
		pinned := func() (tags []string) {
			d.collectGarbage()
			list, err := d.Catalog(d.ctx, testNamespace, testID)
			require.NoError(t, err, "step %d", at)
			for _, e := range list {
				if e.Pinned {
					require.Equal(t, out.Target.Digest, e.Target.Digest, "step %d", at)
					tags = append(tags, e.Tag())
				}
			}
			require.NotEmpty(t, tags, "step %d", at)
			d.fetch(tags[0], earlier)
			return tags
		}
		f := earlier.clone()
		f.seq = 0
		f.change(3)
		_, found := fault.killed(t, d.publisher(o), f.write(t, dir), at)
		pinned()
		for range 2 {
			f.change(3)
			_, err = d.publisher(o).Publish(t.Context(), f.write(t, dir))
			require.NoError(t, err, "step %d", at)
		}
		tags := pinned()
		require.Len(t, tags, 1, "step %d: the image has two names", at)
		d.fetch(Latest, f)
		require.NoError(t, d.Pin(d.ctx, testNamespace, testID, tags[0], false))
		f.change(3)
		_, err = d.publisher(o).Publish(t.Context(), f.write(t, dir))
		require.NoError(t, err)
		d.requireTidy(name("3"), name("4"), name(Latest))
		return found
	})
}

// TestKilledChain kills publications of a publisher that goes on where the one
// before was killed, in the middle of a chain and at its end.
func TestKilledChain(t *testing.T) {
	t.Run("within", func(t *testing.T) {
		everyKill(t, 1, func(f *faults, at int) bool { return killedChain(t, f, at, 4) })
	})
	t.Run("at the end", func(t *testing.T) {
		lateKills(t, func(f *faults, at int) bool { return killedChain(t, f, at, 2) })
	})
}

func killedChain(t *testing.T, fault *faults, at, longest int) bool {
	d := newDaemon(t)
	o := d.publisher(Options{Store: fault.wrap(d.Store), Chain: longest, Retention: Retention{Last: 2}}).o
	o.Resume = true
	f, dir := newFake(20), tempDir(t)
	publish := func() Published {
		f.change(3)
		p, err := NewPublisher(o)
		require.NoError(t, err)
		out, err := p.Publish(t.Context(), f.write(t, dir))
		require.NoError(t, err, "step %d", at)
		return out
	}
	publish()
	require.Equal(t, 1, publish().Chain)
	before := f.clone()
	f.change(3)
	p, err := NewPublisher(o)
	require.NoError(t, err)
	// What the process did after it was killed, it did not do.
	left := filepath.Join(tempDir(t), "left")
	fault.dying = func() { require.NoError(t, os.CopyFS(left, os.DirFS(o.Dir))) }
	out, found := fault.killed(t, p, f.write(t, dir), at)
	if found {
		o.Dir = left
	}
	d.collectGarbage()
	d.fetch("2", before)
	if out.Name != "" {
		d.fetch("3", f)
	}
	// The shim lives on and tries once more.
	f.seq = before.seq
	again := publish()
	require.Equal(t, name("3"), again.Name)
	if longest > 2 {
		require.Positive(t, again.Chain, "step %d: the chain goes on", at)
	}
	d.collectGarbage()
	d.fetch(Latest, f)
	files, err := os.ReadDir(o.Dir)
	require.NoError(t, err)
	require.Len(t, files, 2, "step %d: tables nobody reads", at)
	d.requireTidy(name("2"), name("3"), name(Latest))
	return found
}

// TestKilledNodeRetention kills a publication after which images of several
// containers go: the newest of each stay, and the next one ends what was begun.
func TestKilledNodeRetention(t *testing.T) {
	lateKills(t, func(fault *faults, at int) bool {
		d := newDaemon(t)
		dir, begin := tempDir(t), time.Now().Add(-time.Hour)
		f := newFake(20)
		write := func(fake *fakeCheckpoint) Checkpoint {
			fake.change(20)
			cp := fake.write(t, dir)
			begin = begin.Add(time.Minute)
			cp.Time = begin
			return cp
		}
		neighbour := d.neighbour("b")
		for range 3 {
			_, err := neighbour.Publish(t.Context(), write(f))
			require.NoError(t, err)
		}
		last := f.clone()
		f.seq = 0
		mine := Options{Store: fault.wrap(d.Store), Chain: 1}
		first, err := d.publisher(mine).Publish(t.Context(), write(f))
		require.NoError(t, err)
		// Room for two images: what stays anyway.
		mine.Retention.NodeMaxBytes = 2*first.Bytes + first.Bytes/2
		_, found := fault.killed(t, d.publisher(mine), write(f), at)
		d.collectGarbage()
		newest := func() {
			image, err := d.Images.Get(d.ctx, Name(testNamespace, "b", Latest))
			require.NoError(t, err, "step %d", at)
			fetched := filepath.Join(tempDir(t), "fetched")
			_, err = Fetch(d.ctx, d.Content, image.Target, fetched, anyone())
			require.NoError(t, err, "step %d", at)
			last.requireSame(t, fetched)
		}
		newest()
		_, err = d.publisher(mine).Publish(t.Context(), write(f))
		require.NoError(t, err, "step %d", at)
		d.collectGarbage()
		newest()
		d.fetch(Latest, f)
		require.ElementsMatch(t, []string{
			name("3"), name(Latest), Name(testNamespace, "b", "3"), Name(testNamespace, "b", Latest),
		}, d.names(), "step %d", at)
		for _, n := range d.names() {
			require.NoError(t, d.Images.Delete(d.ctx, n))
		}
		d.collectGarbage()
		require.Zero(t, d.blobs(), "step %d", at)
		return found
	})
}

// neighbour publishes full images of another container.
func (d *daemon) neighbour(id string) *Publisher {
	d.t.Helper()
	d.addContainer(id)
	o := d.publisher(Options{Chain: 1}).o
	o.Origin.ID = id
	p, err := NewPublisher(o)
	require.NoError(d.t, err)
	return p
}

// cancelledLeases makes a lease, and then answers that the caller has given up.
type cancelledLeases struct {
	leases.Manager
	giveUp func()
}

func (l cancelledLeases) Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error) {
	lease, err := l.Manager.Create(ctx, opts...)
	l.giveUp()
	return lease, errors.Join(err, ctx.Err())
}

// TestCancelledLease: a publication that is cancelled while it takes its lease
// gives it back.
func TestCancelledLease(t *testing.T) {
	d := newDaemon(t)
	ctx, cancel := context.WithCancel(t.Context())
	store := *d.Store
	store.Leases = cancelledLeases{d.Leases, cancel}
	_, err := d.publisher(Options{Store: &store}).Publish(ctx, newFake(20).write(t, tempDir(t)))
	require.ErrorIs(t, err, context.Canceled)
	list, err := d.Leases.List(d.ctx)
	require.NoError(t, err)
	require.Empty(t, list)
}

// TestContainerGone: a publisher that begins when the directory of its container
// is removed already does not bring it back.
func TestContainerGone(t *testing.T) {
	o := newDaemon(t).publisher(Options{}).o
	gone := filepath.Dir(o.Dir)
	require.NoError(t, os.RemoveAll(gone))
	_, err := NewPublisher(o)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoDirExists(t, gone)
}
