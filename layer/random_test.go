package layer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestRandomChain does what checkpoints and recoveries do to one container for
// a long time: it captures on top of the last snapshot, goes on, dies, is put
// back, mostly to the last snapshot, sometimes to the one before.
func TestRandomChain(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 20
	}
	t.Run("fixed", func(t *testing.T) { randomChain(t, 1, rounds) })
	t.Run("chosen", func(t *testing.T) { randomChain(t, testSeed(t), rounds/4) })
}

func randomChain(t *testing.T, seed uint64, rounds int) {
	o := newOverlay(t)
	o.mount()
	m := newMutator(t, o.merged, seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	views := map[int]map[string]string{} // the merged view, by snapshot
	last := 0
	m.run(30)
	for round := 1; round <= rounds; round++ {
		prev := ""
		if last > 0 {
			prev = o.snapshot(last)
		}
		mustCapture(t, o.upper, o.snapshot(round), prev)
		// Before anything is read: overlayfs drops stale "impure" marks when a
		// directory is listed.
		requireIsSame(t, true, o.snapshot(round), o.upper)
		if rng.IntN(2) == 0 {
			require.NoError(t, Sync(o.snapshot(round)))
			requireIsSame(t, true, o.snapshot(round), o.upper)
		}
		views[round] = describe(t, o.merged, false)
		for old := range views {
			if old != round && old != last {
				require.NoError(t, os.RemoveAll(o.snapshot(old)))
				delete(views, old)
			}
		}
		target := round
		if last > 0 && rng.IntN(4) == 0 {
			target = last
		}
		m.run(rng.IntN(25))
		if rng.IntN(3) == 0 {
			last = round
			continue // no crash
		}
		o.restore(target)
		requireSame(t, views[target], describe(t, o.merged, false), fmt.Sprintf("round %d, snapshot %d", round, target))
		last = target
	}
}

// countdown is a context that is cancelled when it has been asked often enough:
// it stops a rollback after each of its steps in turn.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestRollbackInterruptedAtEveryStep(t *testing.T) {
	o := newOverlay(t)
	o.mount()
	seed := testSeed(t)
	m := newMutator(t, o.merged, seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	m.run(60)
	mustCapture(t, o.upper, o.snapshot(1), "")
	view := describe(t, o.merged, false)
	rounds := 120
	if testing.Short() {
		rounds = 10
	}
	interrupted := 0
	for round := range rounds {
		m.run(20)
		o.unmount()
		for range 1 + rng.IntN(3) {
			_, err := Rollback(&countdown{context.Background(), rng.IntN(120)}, o.snapshot(1), o.upper)
			if err != nil {
				require.ErrorIs(t, err, context.Canceled)
				interrupted++
			}
		}
		rollBack(t, o.snapshot(1), o.upper)
		o.mount()
		requireSame(t, view, describe(t, o.merged, false), fmt.Sprintf("round %d", round))
	}
	require.Greater(t, interrupted, rounds/4)
}

const childEnv = "LAYER_TEST_ROLLBACK"

// TestMain runs a rollback instead of the tests in the process that
// TestRollbackKilled kills.
func TestMain(m *testing.M) {
	if args := os.Getenv(childEnv); args != "" {
		snapshot, dir, _ := strings.Cut(args, ":")
		fmt.Println("begin")
		if _, err := Rollback(context.Background(), snapshot, dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestRollbackKilled(t *testing.T) {
	o := newOverlay(t)
	o.mount()
	seed := testSeed(t)
	m := newMutator(t, o.merged, seed)
	rng := rand.New(rand.NewPCG(seed, 4))
	m.run(200)
	mustCapture(t, o.upper, o.snapshot(1), "")
	view := describe(t, o.merged, false)
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	killed := 0
	for round := range rounds {
		m.run(100)
		o.unmount()
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), childEnv+"="+o.snapshot(1)+":"+o.upper)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		_, err = out.Read(make([]byte, 5))
		require.NoError(t, err)
		time.Sleep(time.Duration(rng.IntN(12_000)) * time.Microsecond)
		_ = cmd.Process.Signal(unix.SIGKILL)
		if cmd.Wait() != nil && cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
			killed++
		}
		rollBack(t, o.snapshot(1), o.upper)
		o.mount()
		requireSame(t, view, describe(t, o.merged, false), fmt.Sprintf("round %d", round))
	}
	t.Logf("%d of %d rollbacks were killed half-way", killed, rounds)
	require.NotZero(t, killed)
}

// TestScratch does the same on a tmpfs, the tree that has no trustworthy times.
func TestScratch(t *testing.T) {
	dir, snapshots := newTmpfs(t), t.TempDir()
	m := newMutator(t, dir, 7)
	prev := ""
	m.run(50)
	for round := range 30 {
		snapshot := filepath.Join(snapshots, fmt.Sprint(round))
		mustCapture(t, dir, snapshot, prev)
		view := describe(t, dir, false)
		requireIsSame(t, true, snapshot, dir)
		m.run(20)
		rollBack(t, snapshot, dir)
		requireSame(t, view, describe(t, dir, false), fmt.Sprintf("round %d", round))
		untouched := describe(t, dir, true)
		rollBack(t, snapshot, dir)
		requireSame(t, untouched, describe(t, dir, true), "second rollback")
		prev = snapshot
	}
}
