package bench

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/env"
)

const instance = "btest"

func assertGone(t *testing.T) {
	t.Helper()
	e, err := env.Locate(instance)
	require.NoError(t, err)
	for _, pattern := range []string{e.Dir + "*", "/run/netns/" + e.Name + "-*", "/sys/fs/cgroup/*/" + e.Namespace} {
		found, err := filepath.Glob(pattern)
		require.NoError(t, err)
		assert.Empty(t, found)
	}
}

// TestProber: a server that stands still for a while is seen to do so.
func TestProber(t *testing.T) {
	rig, err := Open(context.Background(), instance, &bytes.Buffer{})
	t.Cleanup(func() { require.NoError(t, rig.Close()); assertGone(t) })
	require.NoError(t, err)
	s, err := rig.StartRedis(context.Background(), ServerOptions{ID: "plain", Pod: "plain", Runtime: env.RuntimeRunc})
	require.NoError(t, err)
	assert.ErrorIs(t, s.Protected(), ErrUnprotected)

	p, err := rig.StartProber(s.Addr)
	require.NoError(t, err)
	time.Sleep(100 * time.Millisecond)
	from := time.Now()
	c, err := rig.DialRedis(s.Addr)
	require.NoError(t, err)
	defer c.Close()
	const still = 300 * time.Millisecond
	_, err = rig.Env.Ctr(context.Background(), "task", "pause", s.ID)
	require.NoError(t, err)
	time.Sleep(still)
	_, err = rig.Env.Ctr(context.Background(), "task", "resume", s.ID)
	require.NoError(t, err)
	_, err = c.Do("PING")
	require.NoError(t, err)
	to := time.Now()
	require.NoError(t, p.Stop())
	require.NoError(t, p.Stop(), "twice is fine")
	assert.GreaterOrEqual(t, p.Longest(from, to), Millis(still))
	assert.Less(t, p.Median(), p.Longest(from, to)/2)
	assert.Zero(t, p.Longest(to.Add(time.Hour), to.Add(2*time.Hour)))
	require.NoError(t, s.Remove(context.Background()))
}

// failing is a benchmark that measures something and then fails.
type failing struct{ err error }

func (failing) Name() string        { return "test" }
func (failing) Flags(*flag.FlagSet) {}
func (f failing) Run(_ context.Context, _ *Rig, out *Results) error {
	out.Add("something", 1, "ms", "")
	return f.err
}

func TestMainKeepsWhatWasMeasured(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out.json")
	args := []string{"-instance", instance, "-out", file}
	assert.Equal(t, 0, Main(failing{}, args))
	assert.NoFileExists(t, logBeside(file))
	assert.Equal(t, 1, Main(failing{errors.New("on purpose")}, args))
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.Contains(t, string(data), "something")
	assert.FileExists(t, logBeside(file))
	assertGone(t)
}
