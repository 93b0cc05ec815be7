package netproxy

import (
	"testing"

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

func makeConns(n int) []*conn {
	out := make([]*conn, n)
	for i := range out {
		out[i] = &conn{}
	}
	return out
}

func TestSpinForFew(t *testing.T) {
	var s spin
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
	var s spin
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
	var s spin
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
