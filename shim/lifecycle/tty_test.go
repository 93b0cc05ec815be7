package lifecycle

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/stdio"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// newTerminal is what runc or CRIU hands over, and the container's side of it.
func newTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	require.Zero(t, errno)
	slave = os.NewFile(fd, "slave")
	t.Cleanup(func() { master.Close(); slave.Close() })
	return master, slave
}

// adopted is a terminal of the shim's; slave is the container's side.
func adopted(t *testing.T) (*tty, *os.File) {
	t.Helper()
	master, slave := newTerminal(t)
	tt, err := newTTY(master)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tt.close() })
	return tt, slave
}

func settings(t *testing.T, f *os.File) *unix.Termios {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	require.NoError(t, err)
	return s
}

// TestTerminalMarkBeside: somebody outside the container has its terminal and writes on
// and on; a checkpoint does not wait for the end of that.
func TestTerminalMarkBeside(t *testing.T) {
	o := &output{dst: newSink(t).File, keep: true}
	tt, slave := adopted(t)
	o.attach(tt, nil)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for b := make([]byte, 4096); ; {
			if _, err := slave.Write(b); err != nil {
				return
			}
		}
	}()
	for range 100 {
		o.mark()
		tt.mu.Lock()
		kept := len(tt.buf)
		tt.mu.Unlock()
		require.LessOrEqual(t, kept, pendingLimit+2*firstBufferSize) // a page from each of two readers
	}
	require.NoError(t, tt.close()) // hangs up
	<-stopped
}

// TestTerminalMark: output counts to the byte, wherever in the kernel it is, with
// a client that reads nothing.
func TestTerminalMark(t *testing.T) {
	dst := newSink(t)
	o := &output{dst: dst.File, keep: true}
	first, slave := adopted(t)
	o.attach(first, nil)
	line := strings.Repeat("x", 98) + "\n" // and \r
	for i := range 20 {
		_, err := slave.WriteString(strings.Repeat(line, 10+i))
		require.NoError(t, err)
		mark := o.mark()
		o.meter.mu.Lock()
		first.mu.Lock()
		pending := int64(len(first.buf))
		first.mu.Unlock()
		require.Equal(t, o.meter.total+pending, mark.offset)
		require.Zero(t, mark.offset%100, "a whole number of lines: all that was written")
		o.meter.mu.Unlock()
		mark.release()
		expectRead(t, dst.r, strings.Repeat(line[:98]+"\r\n", 10+i))
	}
	o.close()
}

// TestTerminalAcross: the output of a terminal and of the one after it, with what
// comes a second time dropped.
func TestTerminalAcross(t *testing.T) {
	dst := newSink(t)
	o := &output{dst: dst.File, keep: true}
	first, slave := adopted(t)
	o.attach(first, nil)
	_, err := slave.WriteString("one\n")
	require.NoError(t, err)
	mark := o.mark()
	_, err = slave.WriteString("two\nthree\n")
	require.NoError(t, err)
	require.NoError(t, slave.Close())

	second, slave2 := adopted(t)
	_, err = slave2.WriteString("two\nthree\nfour\n")
	require.NoError(t, err)
	o.attach(second, mark)
	expectRead(t, dst.r, "one\r\ntwo\r\nthree\r\nfour\r\n")
	_, err = slave2.WriteString("last")
	require.NoError(t, err)
	require.NoError(t, slave2.Close())
	o.release()
	second.dead()
	<-o.finished()
	expectRead(t, dst.r, "last")
	_, err = dst.WriteString("closed")
	require.ErrorIs(t, err, os.ErrClosed)
}

// TestTerminalTyped: what the dead have not read is typed again, is not seen
// again, and leaves the settings as they are.
func TestTerminalTyped(t *testing.T) {
	first, _ := adopted(t)
	_, err := first.write([]byte("whole line\nhalf a li"))
	require.NoError(t, err)
	require.EqualValues(t, len("whole line\r\nhalf a li"), first.pendingLocked(), "echoed")
	left := first.retire()
	require.Equal(t, "whole line\nhalf a li", string(left))

	second, slave := adopted(t)
	before := settings(t, slave)
	require.NoError(t, second.feed(left))
	require.NoError(t, second.feed([]byte("once only")))
	require.Equal(t, before, settings(t, slave))
	require.Zero(t, second.pendingLocked())
	_, err = second.write([]byte("ne\n"))
	require.NoError(t, err)
	expectRead(t, slave, "whole line\nhalf a line\n")
	require.EqualValues(t, len("ne\r\n"), second.pendingLocked(), "what is new is echoed")
}

// TestTerminalHangUp: the client's end is that of the terminal, and of those that
// take its place.
func TestTerminalHangUp(t *testing.T) {
	tt, slave := adopted(t)
	tt.end()
	_, err := slave.WriteString("anybody?")
	require.ErrorIs(t, err, syscall.EIO)
	m := &meter{}
	_, more := tt.next(m)
	require.False(t, more)

	gone := hungUpTTY()
	require.Zero(t, gone.pendingLocked())
	require.Empty(t, gone.retire())
	require.NoError(t, gone.feed([]byte("nobody")))
	require.NoError(t, gone.resize(&unix.Winsize{Row: 1}))
	_, err = gone.write([]byte("nobody"))
	require.ErrorIs(t, err, os.ErrClosed)
	_, more = gone.next(m)
	require.False(t, more)
}

// TestTerminalFull: with nobody to take the output the process waits, and loses
// nothing.
func TestTerminalFull(t *testing.T) {
	tt, slave := adopted(t)
	want := strings.Repeat(strings.Repeat("y", 1023)+"\n", 256)
	wrote := make(chan error, 1)
	go func() {
		_, err := slave.WriteString(want)
		wrote <- err
	}()
	m := &meter{}
	var got strings.Builder
	for got.Len() < len(want)+256 {
		out, more := tt.next(m)
		require.True(t, more)
		require.LessOrEqual(t, len(out), copyBufferSize+firstBufferSize)
		got.Write(out)
	}
	require.NoError(t, <-wrote)
	require.Equal(t, strings.ReplaceAll(want, "\n", "\r\n"), got.String())
}

// TestTerminalSettle: a new terminal has the size of the last, whoever set it.
func TestTerminalSettle(t *testing.T) {
	s := &streams{want: stdio.Stdio{Terminal: true, Stdout: "unused"}}
	require.NoError(t, s.prepare())
	master, slave := newTerminal(t)
	require.NoError(t, s.stdio.SetConsole(master))
	require.NoError(t, unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 11, Col: 22}))
	next := func() *Stdio {
		n, err := s.renew()
		require.NoError(t, err)
		master, _ := newTerminal(t)
		require.NoError(t, n.SetConsole(master))
		require.NoError(t, n.Settle(1))
		require.NoError(t, s.resume(n, nil))
		return n
	}
	require.Equal(t, unix.Winsize{Row: 11, Col: 22}, *next().term().size())
	require.NoError(t, s.resize(unix.Winsize{Row: 33, Col: 44}))
	require.Equal(t, unix.Winsize{Row: 33, Col: 44}, *s.stdio.term().size())
	require.Equal(t, unix.Winsize{Row: 33, Col: 44}, *next().term().size())
	s.close()
}

// TestTerminalAnswer: who types after a restore sees what comes of it, even if
// that is less than there was before.
func TestTerminalAnswer(t *testing.T) {
	dst := newSink(t)
	o := &output{dst: dst.File, keep: true}
	first, slave := adopted(t)
	o.attach(first, nil)
	mark := o.mark()
	_, err := slave.WriteString("answer\nto\nwhat is forgotten\n")
	require.NoError(t, err)
	expectRead(t, dst.r, "answer\r\nto\r\nwhat is forgotten\r\n")
	second, slave2 := adopted(t)
	o.attach(second, mark)
	require.Eventually(t, func() bool {
		o.meter.mu.Lock()
		defer o.meter.mu.Unlock()
		return !o.meter.skip.Empty()
	}, 10*time.Second, time.Millisecond)
	o.meter.giveUp()
	_, err = slave2.WriteString("again\n")
	require.NoError(t, err)
	expectRead(t, dst.r, "again\r\n")
	o.close()
}
