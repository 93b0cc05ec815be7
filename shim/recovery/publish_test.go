package recovery

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/oci"
)

// aCheckpoint is a complete one, without trees.
func aCheckpoint(t *testing.T, seq uint64) *checkpoint {
	cp := &checkpoint{seq: seq, dir: filepath.Join(t.TempDir(), strconv.FormatUint(seq, 10))}
	require.NoError(t, os.MkdirAll(cp.images(), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(cp.images(), "inventory.img"), []byte("x"), 0o600))
	require.NoError(t, os.WriteFile(cp.cutFile(), []byte("{}"), 0o600))
	return cp
}

func aPublisher(t *testing.T) *publisher {
	return newPublisher(filepath.Join(t.TempDir(), "publish"), &files{})
}

// TestPublishLatest: whoever publishes gets the last of the checkpoints that
// were made meanwhile, and each once.
func TestPublishLatest(t *testing.T) {
	p := aPublisher(t)
	for seq := range uint64(5) {
		p.offer(&checkpoint{seq: seq})
	}
	require.EqualValues(t, 4, p.take().seq)
	require.Nil(t, p.take())
	p.retry(&checkpoint{seq: 4})
	require.EqualValues(t, 4, p.take().seq)
	p.offer(&checkpoint{seq: 6})
	p.retry(&checkpoint{seq: 5})
	require.EqualValues(t, 6, p.take().seq, "a later one supersedes a failed one")
	var none *publisher
	none.offer(&checkpoint{}) // nothing is published
}

// TestPublishFails: failures are reported, attempts become rare, and the end of
// the container is not delayed.
func TestPublishFails(t *testing.T) {
	p := aPublisher(t)
	var mu sync.Mutex
	var waits []time.Duration
	p.work = func(context.Context) (*imageWork, error) { return &imageWork{}, nil }
	p.make = func(context.Context, *imageWork) (oci.Published, error) {
		return oci.Published{}, errors.New("no daemon")
	}
	p.failed = func(err error, again time.Duration) {
		require.ErrorContains(t, err, "checkpoint 3: no daemon")
		mu.Lock()
		defer mu.Unlock()
		waits = append(waits, again)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); p.run(ctx) }()
	p.offer(aCheckpoint(t, 3))
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(waits) == 2
	}, time.Minute, 10*time.Millisecond)
	require.Equal(t, []time.Duration{firstPublishBackoff, 2 * firstPublishBackoff}, waits)
	cancel()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the publisher does not end")
	}
}

// TestFlush: it waits for what is pending or under way, and for no longer than
// it may.
func TestFlush(t *testing.T) {
	p := aPublisher(t)
	require.NoError(t, p.flush(t.Context()))
	require.NoError(t, (*publisher)(nil).flush(t.Context()))
	p.offer(&checkpoint{seq: 1})
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, p.flush(short), context.DeadlineExceeded, "pending")
	flushed := make(chan error, 1)
	go func() { flushed <- p.flush(t.Context()) }()
	cp := p.take()
	p.retry(cp) // it failed
	p.rest()
	require.Same(t, cp, p.take())
	select {
	case <-flushed:
		t.Fatal("flush did not wait for what is under way")
	case <-time.After(20 * time.Millisecond):
	}
	p.rest()
	require.NoError(t, <-flushed)
}

// TestLinkedCheckpoint: one that is removed while it is published stays whole;
// one that was removed before is no failure.
func TestLinkedCheckpoint(t *testing.T) {
	p, cp := aPublisher(t), aCheckpoint(t, 7)
	memory := filepath.Join(t.TempDir(), "7")
	for _, inMemory := range []bool{false, true} {
		if inMemory {
			cp = aCheckpoint(t, 7)
			p.memory = filepath.Join(filepath.Dir(memory), "published")
			require.NoError(t, os.Rename(cp.images(), memory))
			cp.inMemory.Store(&memory)
		}
		images, err := p.link(cp)
		require.NoError(t, err)
		require.Equal(t, inMemory, images == p.memory)
		require.NoError(t, cp.remove())
		require.NoDirExists(t, cp.images())
		require.FileExists(t, filepath.Join(images, "inventory.img"))
		require.FileExists(t, filepath.Join(p.linked, "cut.json"))
		require.NoError(t, p.room(images))
		_, err = p.link(cp)
		require.ErrorIs(t, err, os.ErrNotExist)
		require.NoError(t, p.publish(t.Context(), imageWork{}, cp))
		require.NoDirExists(t, p.linked)
		require.NoDirExists(t, images)
	}
}

func TestRoomForProtection(t *testing.T) {
	p, cp := aPublisher(t), aCheckpoint(t, 7)
	big := filepath.Join(cp.images(), "pages-1.img")
	require.NoError(t, os.WriteFile(big, nil, 0o600))
	require.NoError(t, os.Truncate(big, 1<<42)) // sparse
	images, err := p.link(cp)
	require.NoError(t, err)
	require.ErrorIs(t, p.room(images), errNoRoom)
}
