package matrix

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/env"
)

// TestOldestAndNewest is the part of the matrix that is worth its time each
// time: what the shim says to a daemon changes with the daemon's version.
func TestOldestAndNewest(t *testing.T) {
	e, err := env.Locate("")
	require.NoError(t, err)
	all, err := Pairs(e.Root)
	require.NoError(t, err)
	require.Len(t, all, 15)
	pairs := []Pair{all[0], all[len(all)-1]}
	require.NoError(t, Install(context.Background(), e.Root, pairs))
	for _, p := range pairs {
		c := Run(context.Background(), p)
		assert.True(t, c.OK, "%s: %s", p, c.Error)
		assert.Equal(t, 2, c.Recovered, p.String())
	}
}

func TestVersionsAreReadFromTheFile(t *testing.T) {
	got, err := list("A=\"x\"\nMATRIX_RUNC=\"v1 v2\"\n", "MATRIX_RUNC")
	require.NoError(t, err)
	assert.Equal(t, []string{"v1", "v2"}, got)
	_, err = list("MATRIX_RUNCS=\"v1\"\n", "MATRIX_RUNC")
	assert.ErrorContains(t, err, "MATRIX_RUNC")
}
