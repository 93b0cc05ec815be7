package netproxy

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// askInTurn lets n turns pass in which each of conns alone asks and is answered, in turn.
func askInTurn(s *spin, conns []*conn, n int) {
	for i := range n {
		c := conns[i/2%len(conns)]
		if i%2 == 0 {
			c.inRead++
		} else {
			c.outRead++
		}
		s.saw([]*conn{c})
	}
}

// noDelay is that of a machine with processors to spare.
func noDelay() (time.Duration, bool) { return spinWindow * spinDelay / 3, true }

func makeConns(n int) []*conn {
	out := make([]*conn, n)
	for i := range out {
		out[i] = &conn{}
	}
	return out
}

func TestSpinForFew(t *testing.T) {
	s := spin{delay: noDelay}
	few, many := makeConns(spinFew), makeConns(spinFew+1)
	require.False(t, s.due(), "nothing is known yet")
	askInTurn(&s, few, spinWindow)
	require.True(t, s.due(), "few connections")
	askInTurn(&s, many, 2*len(many))
	require.False(t, s.due(), "many in the window that runs")
	askInTurn(&s, many, 2*spinWindow)
	require.False(t, s.due(), "many in the window before")
	askInTurn(&s, few, 2*spinWindow)
	require.True(t, s.due(), "few again")
}

func TestSpinTogether(t *testing.T) {
	s := spin{delay: noDelay}
	many := makeConns(spinFew + 1)
	for range 2 * spinWindow {
		s.saw(many)
	}
	require.False(t, s.due())
	s.saw(nil)
	require.False(t, s.due())
}

// TestSpinLearns: a client that takes its time costs little, and does not spoil the
// wait for the application.
func TestSpinLearns(t *testing.T) {
	s := spin{delay: noDelay}
	c := makeConns(1)
	askInTurn(&s, c, spinWindow) // an even number: it was answered last
	moved := func(stream *uint64) { *stream++; s.saw(c) }
	tries := 0
	const waits = 10_000
	for range waits {
		require.Equal(t, anyRequest, s.expected)
		if s.due() {
			tries++
			s.learn(false)
		}
		moved(&c[0].inRead)
		require.Equal(t, anAnswer, s.expected)
		require.True(t, s.due())
		s.learn(true)
		moved(&c[0].outRead)
	}
	require.Less(t, tries, waits/100, "in vain")
	require.Greater(t, tries, 10, "tried again from time to time")
	// When requests come at once again it does so in most waits after a few tries.
	tries = 0
	for range 4 * spinPause {
		if s.due() {
			tries++
			s.learn(true)
		}
	}
	require.Greater(t, tries, 2*spinPause)
}

// TestSpinLeavesProcessors: where the loop has to wait for a processor it does not use
// one for nothing, and seldom asks again.
func TestSpinLeavesProcessors(t *testing.T) {
	delay, known, asked := spinDelay, true, 0
	turns, c := 0, makeConns(1)
	s := spin{delay: func() (time.Duration, bool) {
		waited := delay * time.Duration(turns)
		asked++
		turns = 0
		return waited, known
	}}
	pass := func() { turns += spinWindow; askInTurn(&s, c, spinWindow) }
	for range 1000 {
		pass()
		require.False(t, s.due(), "processors are scarce")
	}
	require.Less(t, asked, 20)
	delay = spinDelay / 2
	for range spinPause + 1 {
		pass()
	}
	require.True(t, s.due(), "there are enough again")
	known = false
	pass()
	require.False(t, s.due(), "it is not known")
	known = true
	pass()
	require.True(t, s.due(), "it is known again")
}

func TestDelays(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var d delays
	_, ok := d.since()
	require.False(t, ok, "at first nothing is known")
	for range 100 {
		time.Sleep(time.Microsecond)
	}
	waited, ok := d.since()
	require.True(t, ok)
	require.Positive(t, waited, "who sleeps a hundred times waits to run again")
	waited, ok = d.since()
	require.True(t, ok)
	require.GreaterOrEqual(t, waited, time.Duration(0))
	d.close()
	require.Equal(t, delays{}, d)
}
