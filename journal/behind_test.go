package journal

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/internal/vfs"
)

// behindOptions are those of a journal in class Disk, with a channel for the ends
// of its commits.
func behindOptions(fs vfs.FS) (o Options, landed chan struct{}) {
	o = memOptions(fs)
	o.Durability, o.Now = Disk, time.Now // memOptions' clock is for one goroutine
	return o, make(chan struct{}, 1)
}

// await waits for the end of the commit under way, and collects it.
func await(t *testing.T, j *Journal, landed chan struct{}) (bool, error) {
	t.Helper()
	select {
	case <-landed:
	case <-time.After(time.Minute):
		t.Fatal("the commit did not end")
	}
	return behind(j, landed)
}

// behind commits behind, and has landed told of the end.
func behind(j *Journal, landed chan struct{}) (bool, error) {
	return j.CommitBehind(func() { landed <- struct{}{} })
}

// TestCommitBehindPromisesOnlyWhatIsSynced crashes the host before each
// operation of the committing goroutine, while the writer goes on appending:
// what Committed had said by then survives.
func TestCommitBehindPromisesOnlyWhatIsSynced(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			mem := vfs.NewMem()
			rng, crng := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
			var j *Journal
			var mu sync.Mutex // guards j against its own making
			crashes, last := 0, Position(0)
			o, landed := behindOptions(vfs.NewFault(mem, func(op vfs.Op) error {
				mu.Lock()
				defer mu.Unlock()
				if j == nil || !op.Mutates() {
					return nil
				}
				promised := j.Committed()
				for _, s := range []vfs.Survival{vfs.SyncedOnly, vfs.SomeUnsynced, vfs.SomeUnsynced} {
					after := memOptions(mem.CrashClone(s, crng))
					after.Durability = Disk
					got, err := Open(after)
					if err != nil {
						t.Errorf("before %+v: %v", op, err)
						return nil
					}
					if got.Recovered().End < promised {
						t.Errorf("before %+v: committed up to %d, found up to %d", op, promised, got.Recovered().End)
					}
					if err := checkNumbered(readJournal(t, got), 0); err != nil {
						t.Errorf("before %+v: %v", op, err)
					}
				}
				crashes++
				last = promised
				return nil
			}))
			made := mustOpen(t, o)
			mu.Lock()
			j = made
			mu.Unlock()
			under, err := false, error(nil)
			for i := range 60 {
				numbered(made, i, rng.IntN(1500))
				if !under || rng.IntN(4) == 0 {
					if under {
						under, err = await(t, made, landed)
					} else {
						under, err = behind(made, landed)
					}
					require.NoError(t, err)
				}
			}
			require.NoError(t, made.Close())
			require.Greater(t, crashes, 30)
			require.Greater(t, last, Position(10000))
		})
	}
}

// TestCommitBehindShares: what is appended while the disk is busy waits for one
// sync together, not for one each.
func TestCommitBehindShares(t *testing.T) {
	busy := make(chan struct{})
	var once sync.Once
	blocked := make(chan struct{})
	o, landed := behindOptions(vfs.NewFault(vfs.NewMem(), func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && op.N > 8 {
			once.Do(func() { close(blocked); <-busy })
		}
		return nil
	}))
	j := mustOpen(t, o)
	n := 0
	for under := false; ; n++ { // past the syncs of opening
		numbered(j, n, 10)
		var err error
		under, err = behind(j, landed)
		require.NoError(t, err)
		require.True(t, under)
		select {
		case <-landed:
			continue
		case <-blocked:
		}
		break
	}
	before := j.Stats().Syncs
	committed := j.Committed()
	for range 100 {
		n++
		numbered(j, n, 10)
		under, err := behind(j, landed)
		require.NoError(t, err)
		require.True(t, under)
	}
	require.Equal(t, committed, j.Committed(), "nothing is acknowledged while the disk is busy")
	close(busy)
	under, err := await(t, j, landed)
	require.NoError(t, err)
	require.True(t, under, "the rest is under way")
	under, err = await(t, j, landed)
	require.NoError(t, err)
	require.False(t, under)
	require.Equal(t, j.End(), j.Committed())
	require.Equal(t, before+2, j.Stats().Syncs)
	require.NoError(t, checkNumbered(readJournal(t, j), 0))
	require.NoError(t, j.Close())
}

// TestCommitBehindFails: a failure is reported and stays, what was appended
// before and after it is kept in order, and Heal commits it.
func TestCommitBehindFails(t *testing.T) {
	for _, fault := range []error{syscall.ENOSPC, syscall.EIO, &vfs.ShortWrite{Keep: 13, Err: syscall.ENOSPC}} {
		var broken bool
		var mu sync.Mutex
		set := func(b bool) { mu.Lock(); broken = b; mu.Unlock() }
		o, landed := behindOptions(vfs.NewFault(vfs.NewMem(), func(op vfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if broken && op.Kind == vfs.OpWrite {
				return fault
			}
			return nil
		}))
		j := mustOpen(t, o)
		numbered(j, 0, 100)
		_, err := behind(j, landed)
		require.NoError(t, err)
		_, err = await(t, j, landed)
		require.NoError(t, err)
		committed := j.Committed()
		set(true)
		numbered(j, 1, 100)
		_, err = behind(j, landed)
		require.NoError(t, err, "it is only under way")
		numbered(j, 2, 100)
		_, err = await(t, j, landed)
		require.ErrorIs(t, err, fault)
		numbered(j, 3, 100)
		require.ErrorIs(t, j.Commit(), fault, "it stays")
		require.ErrorIs(t, j.Heal(), fault, "it lasts")
		require.Equal(t, committed, j.Committed())
		set(false)
		require.NoError(t, j.Heal())
		require.Equal(t, j.End(), j.Committed())
		require.Zero(t, j.Pending())
		recs := readJournal(t, j)
		require.Len(t, recs, 4)
		require.NoError(t, checkNumbered(recs, 0))
		require.NoError(t, j.Close())
	}
}
