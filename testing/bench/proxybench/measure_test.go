package proxybench

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestTurn: over the rounds everyone is as often in each place, and comes after
// each of the others.
func TestTurn(t *testing.T) {
	a, b, c := &target{name: "a"}, &target{name: "b"}, &target{name: "c"}
	places, after := map[*target][3]int{}, map[[2]*target]int{}
	for round := range 6 {
		order := turn([]*target{a, b, c}, round)
		assert.ElementsMatch(t, []*target{a, b, c}, order)
		for i, x := range order {
			n := places[x]
			n[i]++
			places[x] = n
			if i > 0 {
				after[[2]*target{order[i-1], x}]++
			}
		}
	}
	for _, x := range []*target{a, b, c} {
		assert.Equal(t, [3]int{2, 2, 2}, places[x], x.name)
	}
	assert.Len(t, after, 6)
}
