package journal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/internal/vfs"
)

// workload drives a journal through batches, rolls, trims and a reopening. It
// keeps what a crash at any moment must not lose.
type workload struct {
	opts      Options
	rng       *rand.Rand
	j         *Journal
	positions []Position // of record i
	appended  int
	acked     int // records that Commit returned nil for
	trimmed   int // records before this one may be gone
}

func newWorkload(fs vfs.FS, v variant, seed uint64) *workload {
	o := memOptions(fs)
	o.Durability, o.Key, o.MemoryBytes, o.RecycleSegments = v.class, v.key, 3000, 2
	return &workload{opts: o, rng: rand.New(rand.NewPCG(seed, 3))}
}

// run does the whole workload. After an error of the journal it calls heal,
// and goes on if that returns true.
func (w *workload) run(heal func(error) bool) error {
	for round := range 2 {
		j, err := Open(w.opts)
		for ; err != nil; j, err = Open(w.opts) {
			if !heal(fmt.Errorf("open: %w", err)) {
				return err
			}
		}
		w.j = j
		for step := range 12 {
			for range 1 + w.rng.IntN(4) {
				w.positions = append(w.positions, numbered(w.j, w.appended, w.rng.IntN(1500)))
				w.appended++
			}
			for err := w.j.Commit(); err != nil; err = w.j.Heal() {
				if !heal(fmt.Errorf("commit: %w", err)) {
					return err
				}
			}
			w.acked = w.appended
			if step%5 == 4 {
				if err := w.trim(heal); err != nil {
					return err
				}
			}
		}
		if err := w.j.Close(); err != nil && !heal(fmt.Errorf("close: %w", err)) {
			return fmt.Errorf("round %d: %w", round, err)
		}
	}
	return nil
}

func (w *workload) trim(heal func(error) bool) error {
	w.trimmed = w.appended - 3
	for err := w.j.TrimBefore(w.positions[w.trimmed]); err != nil; err = w.j.TrimBefore(w.positions[w.trimmed]) {
		if !heal(fmt.Errorf("trim: %w", err)) {
			return err
		}
	}
	return nil
}

// check opens what a crash left and compares it with what was appended. It
// must hold all acknowledged records if durable is set; it may be refused as
// corrupt if it is not.
func (w *workload) check(after *vfs.MemFS, durable bool) error {
	o := w.opts
	o.FS, o.Now = after, clock()
	verified, verifyErr := Verify(after, testDir, o.Key)
	j, err := Open(o)
	if err != nil {
		if !durable && errors.Is(err, ErrCorrupt) {
			return nil
		}
		return err
	}
	s := j.Recovered()
	if (verifyErr != nil && !errors.Is(verifyErr, ErrNoJournal)) != (s.Torn != nil) || verified.Records != s.Records {
		return fmt.Errorf("verify found %+v (%v), open %+v", verified, verifyErr, s)
	}
	recs, err := w.read(j)
	if err != nil {
		return err
	}
	first, end := w.trimmed, 0
	if len(recs) > 0 {
		first, end = int(recs[0].Offset), int(recs[0].Offset)+len(recs)
	}
	switch {
	case checkNumbered(recs, first) != nil:
		return checkNumbered(recs, first)
	case first > w.trimmed:
		return fmt.Errorf("first record is %d, trimmed was before %d", first, w.trimmed)
	case end > w.appended || durable && end < w.acked:
		return fmt.Errorf("read records up to %d; acknowledged %d, appended %d", end, w.acked, w.appended)
	}
	for i, rec := range recs {
		if rec.Position != w.positions[first+i] {
			return fmt.Errorf("record %d moved from %d to %d", first+i, w.positions[first+i], rec.Position)
		}
	}
	// The journal goes on where it ended.
	numbered(j, end, 100)
	if err := errors.Join(j.Commit(), j.Close()); err != nil {
		return err
	}
	if again, err := Verify(after, testDir, o.Key); err != nil || again.Records != uint64(len(recs))+1 {
		return fmt.Errorf("after one more record: %+v, %w", again, err)
	}
	return nil
}

func (w *workload) read(j *Journal) ([]Record, error) {
	r, err := j.NewReader(j.Start())
	if err != nil {
		return nil, err
	}
	return readAll(r)
}

// TestCrashAtEveryOperation crashes before each operation that changes the
// disk, in each way, and looks at what is left.
func TestCrashAtEveryOperation(t *testing.T) {
	for _, v := range variants {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("%v/%d", v, seed), func(t *testing.T) {
				mem := vfs.NewMem()
				var w *workload
				crashes := 0
				crng := rand.New(rand.NewPCG(seed, 9))
				crash := func(at any) {
					for _, s := range []vfs.Survival{vfs.AllWritten, vfs.SyncedOnly, vfs.SomeUnsynced, vfs.SomeUnsynced} {
						durable := v.class == Disk || v.class == PageCache && s == vfs.AllWritten
						err := w.check(mem.CrashClone(s, crng), durable)
						require.NoError(t, err, "survival %d, before %+v", s, at)
						crashes++
					}
					// Between two whole operations nothing is torn, but where
					// the end mark of a full segment is a write of its own.
					if op, ok := at.(vfs.Op); !ok || op.Size != frameSize {
						_, err := Verify(mem.CrashClone(vfs.AllWritten, nil), testDir, nil)
						require.NotErrorIs(t, err, ErrCorrupt, "before %+v", at)
						if ok && op.Kind == vfs.OpWrite && op.Offset > 0 {
							require.NoError(t, err, "before %+v", at)
						}
					}
				}
				w = newWorkload(vfs.NewFault(mem, func(op vfs.Op) error {
					if op.Mutates() && op.Kind != vfs.OpMkdirAll {
						crash(op)
					}
					return nil
				}), v, seed)
				require.NoError(t, mem.MkdirAll(testDir))
				require.NoError(t, w.run(func(error) bool { return false }))
				crash("the end")
				require.Greater(t, crashes, 50)
			})
		}
	}
}

// TestKilledInTheMiddleOfAWrite lets each write in turn reach the kernel in
// part only, as when the process is killed.
func TestKilledInTheMiddleOfAWrite(t *testing.T) {
	for _, v := range variants {
		torn, writes := 0, int64(1)
		for ; ; writes++ {
			mem := vfs.NewMem()
			rng := rand.New(rand.NewPCG(uint64(writes), 5))
			var seen int64
			w := newWorkload(vfs.NewFault(mem, func(op vfs.Op) error {
				if op.Kind != vfs.OpWrite {
					return nil
				}
				if seen++; seen == writes {
					return &vfs.ShortWrite{Keep: rng.IntN(int(op.Size)), Err: syscall.EINTR}
				}
				return nil
			}), v, 1)
			if err := w.run(func(error) bool { return false }); err == nil {
				break // the workload has fewer writes
			}
			after := mem.CrashClone(vfs.AllWritten, nil)
			if _, err := Verify(after, testDir, nil); errors.Is(err, ErrTornTail) {
				torn++
			}
			require.NoError(t, w.check(after, v.class != Memory), "%v, write %d", v, writes)
		}
		require.Greater(t, int(writes), 10)
		require.Greater(t, torn, 5, "the test must meet torn tails")
	}
}

// TestFaultAtEveryOperation fails each operation in turn, once. The failure is
// reported and stays, nothing acknowledged is lost if the process dies then,
// and after Heal everything is there.
func TestFaultAtEveryOperation(t *testing.T) {
	faults := []error{syscall.ENOSPC, syscall.EIO, &vfs.ShortWrite{Keep: 13, Err: syscall.ENOSPC}}
	for _, v := range variants {
		for i, fault := range faults {
			if v.key != nil && i > 0 {
				break // the operations are the same
			}
			n := int64(1)
			for ; ; n++ {
				mem := vfs.NewMem()
				w := newWorkload(vfs.NewFault(mem, vfs.FailNth(n, fault)), v, 2)
				failed := 0
				err := w.run(func(err error) bool {
					failed++
					require.ErrorIs(t, err, fault, "%v: operation %d", v, n)
					if w.j != nil && w.j.Err() != nil && !w.j.closed {
						require.ErrorIs(t, w.j.Commit(), fault, "the failure must stay")
					}
					if w.j != nil {
						require.NoError(t, w.check(mem.CrashClone(vfs.AllWritten, nil), v.class != Memory))
					}
					return true
				})
				require.NoError(t, err)
				if failed == 0 {
					break // the workload has fewer operations
				}
				require.Equal(t, 1, failed)
				// A failed Close may have left the Memory class unwritten.
				require.NoError(t, w.check(mem.CrashClone(vfs.AllWritten, nil), v.class != Memory), "%v: operation %d", v, n)
			}
			require.Greater(t, n, int64(40))
		}
	}
}

// TestCrashDuringRepair interrupts the Open that cuts a torn tail before each
// of its operations: the next one must do the same repair.
func TestCrashDuringRepair(t *testing.T) {
	for _, v := range variants {
		mem := vfs.NewMem()
		writes := 0
		w := newWorkload(vfs.NewFault(mem, func(op vfs.Op) error {
			if op.Kind == vfs.OpWrite && op.Size > 1500 {
				if writes++; writes == 5 {
					return &vfs.ShortWrite{Keep: int(op.Size) - 100, Err: syscall.EINTR}
				}
			}
			return nil
		}), v, 4)
		require.Error(t, w.run(func(error) bool { return false }))
		survivals := []vfs.Survival{vfs.AllWritten}
		if v.class == Disk {
			survivals = append(survivals, vfs.SyncedOnly, vfs.SomeUnsynced, vfs.SomeUnsynced)
		}
		torn := mem.CrashClone(vfs.AllWritten, nil)
		_, err := Verify(torn, testDir, nil)
		require.ErrorIs(t, err, ErrTornTail)
		o, crashes := w.opts, 0
		o.FS = vfs.NewFault(torn, func(op vfs.Op) error {
			for _, s := range survivals {
				if op.Mutates() {
					crashes++
					require.NoError(t, w.check(torn.CrashClone(s, w.rng), v.class != Memory), "%v, survival %d, before %+v", v, s, op)
				}
			}
			return nil
		})
		j := mustOpen(t, o)
		require.NotNil(t, j.Recovered().Torn)
		require.Greater(t, crashes, 4)
		require.NoError(t, w.check(torn.CrashClone(survivals[len(survivals)-1], w.rng), v.class != Memory))
	}
}

// TestDiskClassTakesOverALowerClass: what a lower class left is made durable
// before the Disk class promises anything.
func TestDiskClassTakesOverALowerClass(t *testing.T) {
	mem := vfs.NewMem()
	o := memOptions(mem)
	o.Durability = PageCache
	j := mustOpen(t, o)
	n := fill(t, j, 0, 4)
	// The process is killed, not the host: nothing has been synced.
	require.NoError(t, j.release())
	o.Durability = Disk
	j = mustOpen(t, o)
	numbered(j, n, 10)
	require.NoError(t, j.Commit())
	o.FS = mem.CrashClone(vfs.SyncedOnly, nil)
	recs := readJournal(t, mustOpen(t, o))
	require.Len(t, recs, n+1)
	require.NoError(t, checkNumbered(recs, 0))
}
