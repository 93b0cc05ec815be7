package lifecycle

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSwallowDrop(t *testing.T) {
	for _, c := range []struct {
		skip Swallow
		in   string
		out  string
		left Swallow
	}{
		{Swallow{}, "abc", "abc", Swallow{}},
		{Swallow{Newlines: 1}, "a\nb\n", "b\n", Swallow{}},
		{Swallow{Newlines: 2}, "a\nb", "", Swallow{Newlines: 1}},
		{Swallow{Newlines: 1, Bytes: 2}, "a\nbcd", "d", Swallow{}},
		{Swallow{Bytes: 5}, "abc", "", Swallow{Bytes: 2}},
		// The line is shorter than it was: its newline was not written yet.
		{Swallow{Bytes: 5}, "abc\nd", "\nd", Swallow{}},
		{Swallow{Newlines: 3}, "", "", Swallow{Newlines: 3}},
	} {
		skip := c.skip
		require.Equal(t, c.out, string(skip.drop([]byte(c.in))), "%+v of %q", c.skip, c.in)
		require.Equal(t, c.left, skip, "%+v of %q", c.skip, c.in)
	}
}

// TestMeterRecoveries simulates a deterministic program that is checkpointed,
// crashes and is restored at random points, with output in random pieces, some
// of it still in the pipe at the checkpoint: all its output is written once.
func TestMeterRecoveries(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var text strings.Builder
		for i := range 200 {
			fmt.Fprintf(&text, "line %d %s\n", i, strings.Repeat("x", rng.IntN(9)))
		}
		program := text.String()
		var m meter
		var written strings.Builder
		read := func(s string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			written.Write(m.filterLocked([]byte(s)))
		}
		var mark, older *meterMark
		at, piped := 0, 0 // what the program has written, what was read of it
		markAt, olderAt := 0, 0
		m.mu.Lock()
		mark = m.markLocked(0)
		m.mu.Unlock()
		for piped < len(program) {
			switch rng.IntN(10) {
			case 0: // checkpoint
				if older != nil {
					older.release()
				}
				older, olderAt = mark, markAt
				m.mu.Lock()
				mark, markAt = m.markLocked(int64(at-piped)), at
				m.mu.Unlock()
			case 1: // crash: the pipe is drained, then the restore begins
				read(program[piped:at])
				if older != nil && rng.IntN(3) == 0 {
					mark.release()
					mark, markAt, older = older, olderAt, nil
				}
				m.rewind(mark)
				at, piped = markAt, markAt
			case 2, 3, 4:
				at = min(len(program), at+rng.IntN(60))
			default:
				n := min(at, piped+rng.IntN(40))
				read(program[piped:n])
				piped = n
				if at == len(program) && rng.IntN(4) == 0 {
					read(program[piped:at])
					piped = at
				}
			}
		}
		require.Equal(t, program, written.String(), "seed %d", seed)
	}
}

// sink collects what is written and can be made to block.
type sink struct {
	*os.File
	r *os.File
}

func newSink(t *testing.T) sink {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close(); w.Close() })
	return sink{w, r}
}

func TestOutputAcrossPipes(t *testing.T) {
	dst := newSink(t)
	o := &output{dst: dst.File, keep: true}
	p1, err := newPipe(false, 0, 0)
	require.NoError(t, err)
	w1 := p1.container
	o.attach(p1, nil)
	_, err = w1.WriteString("one\ntwo\nthr")
	require.NoError(t, err)
	expectRead(t, dst.r, "one\ntwo\nthr")
	mark := o.mark()
	_, err = w1.WriteString("ee\nfour\n")
	require.NoError(t, err)
	expectRead(t, dst.r, "ee\nfour\n")
	require.Equal(t, Swallow{Newlines: 2}, mark.written())

	p2, err := newPipe(false, 0, 0)
	require.NoError(t, err)
	w2 := p2.container
	_, err = w2.WriteString("EE\nFOUR\nfive\n")
	require.NoError(t, err)
	// Not before the end of the first pipe.
	o.attach(p2, mark)
	time.Sleep(20 * time.Millisecond)
	require.NoError(t, w1.Close())
	expectRead(t, dst.r, "five\n")
	require.NoError(t, w2.Close())
	<-o.finished()
	_, err = dst.WriteString("open")
	require.NoError(t, err, "the destination outlives the pipe")
	o.release()
	_, err = dst.WriteString("closed")
	require.ErrorIs(t, err, os.ErrClosed)
}

// TestOutputLeakedPipe: the first pipe never ends because a stranger holds it.
func TestOutputLeakedPipe(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: waits for drainLimit")
	}
	dst := newSink(t)
	o := &output{dst: dst.File, keep: true}
	p1, err := newPipe(false, 0, 0)
	require.NoError(t, err)
	w1 := p1.container
	defer w1.Close()
	o.attach(p1, nil)
	_, err = w1.WriteString("first")
	require.NoError(t, err)
	p2, err := newPipe(false, 0, 0)
	require.NoError(t, err)
	w2 := p2.container
	o.attach(p2, nil)
	_, err = w2.WriteString("second")
	require.NoError(t, err)
	require.NoError(t, dst.r.SetReadDeadline(time.Now().Add(2*drainLimit)))
	expectRead(t, dst.r, "first")
	expectRead(t, dst.r, "second")
	require.NoError(t, w2.Close())
	o.close()
}

func expectRead(t *testing.T, r *os.File, want string) {
	t.Helper()
	got := make([]byte, 0, len(want))
	for len(got) < len(want) {
		buf := make([]byte, len(want)-len(got))
		n, err := r.Read(buf)
		require.NoError(t, err)
		got = append(got, buf[:n]...)
	}
	require.Equal(t, want, string(got))
}
