package recovery

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/internal/cgroups"
)

// fakeRoot writes files below a directory that stands for /.
func fakeRoot(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(root, name), []byte(text), 0o644))
	}
	return root
}

func memoryFilesBelow(root, text string) memoryFiles {
	return findMemoryFiles(cgroups.Parse(filepath.Join(root, "sys/fs/cgroup"), text), filepath.Join(root, "proc/pressure/memory"))
}

const someStalls = "some avg10=12.50 avg60=3.00 avg300=1.00 total=1\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=0\n"

func TestMemoryFiles(t *testing.T) {
	v1 := map[string]string{
		"sys/fs/cgroup/memory/pod/x/memory.usage_in_bytes": "900\n",
		"sys/fs/cgroup/memory/pod/x/memory.limit_in_bytes": "1000\n",
		"sys/fs/cgroup/memory/pod/x/memory.stat":           "inactive_file 1\ntotal_inactive_file 300\n",
		"proc/pressure/memory":                             someStalls,
	}
	v2 := map[string]string{
		"sys/fs/cgroup/pod/x/memory.current":  "900\n",
		"sys/fs/cgroup/pod/x/memory.max":      "1000\n",
		"sys/fs/cgroup/pod/x/memory.stat":     "anon 5\ninactive_file 300\n",
		"sys/fs/cgroup/pod/x/memory.pressure": "some avg10=7.00 avg60=0 avg300=0 total=0\n",
		"proc/pressure/memory":                someStalls,
	}
	unlimited := map[string]string{
		"sys/fs/cgroup/pod/x/memory.current": "900\n", "sys/fs/cgroup/pod/x/memory.max": "max\n",
	}
	hybrid := map[string]string{"sys/fs/cgroup/unified/pod/x/memory.pressure": "some avg10=7.00 avg60=0 avg300=0 total=0\n"}
	for k, v := range v1 {
		hybrid[k] = v
	}
	const one, two = "5:cpu,cpuacct:/pod/x\n4:memory:/pod/x\n0::/\n", "0::/pod/x\n"
	for name, tc := range map[string]struct {
		files   map[string]string
		cgroups string
		above   float64
		want    level
	}{
		"version 1":             {v1, one, 80, level{60, true, 12.5, sourceHost}},
		"version 2":             {v2, two, 80, level{60, true, 7, sourceCgroup}},
		"far from the limit":    {v2, two, 95, level{90, true, 7, sourceCgroup}},
		"both":                  {hybrid, "4:memory:/pod/x\n" + two, 80, level{60, true, 7, sourceCgroup}},
		"no limit, no pressure": {unlimited, two, 80, level{}},
		"nothing":               {nil, two, 80, level{}},
	} {
		t.Run(name, func(t *testing.T) {
			m := memoryFilesBelow(fakeRoot(t, tc.files), tc.cgroups)
			got, err := m.read(tc.above)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestMemoryFilesOfAGoneCgroup(t *testing.T) {
	root := fakeRoot(t, map[string]string{"sys/fs/cgroup/pod/x/memory.current": "1\n", "sys/fs/cgroup/pod/x/memory.max": "5\n"})
	m := memoryFilesBelow(root, "0::/pod/x\n")
	require.NoError(t, os.RemoveAll(filepath.Join(root, "sys")))
	_, err := m.read(90)
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestMemoryFilesOfThisProcess: this kernel has them in one place or another.
func TestMemoryFilesOfThisProcess(t *testing.T) {
	m, err := memoryFilesOf(os.Getpid())
	require.NoError(t, err)
	l, err := m.read(0)
	require.NoError(t, err)
	require.NotEmpty(t, m.usage+m.stalls)
	if l.limited {
		require.Greater(t, l.memory, 0.0)
	}
}

func TestPressureTriggers(t *testing.T) {
	p := pressure{limits: config.Pressure{Memory: 90, Stalled: 20}}
	now := time.Now()
	for _, step := range []struct {
		at    time.Duration
		l     level
		cause string
	}{
		{0, level{89.9, true, 0, sourceHost}, ""},
		{1, level{90, true, 0, sourceHost}, "memory at 90% of its limit"},
		{2, level{95, true, 50, sourceHost}, ""},
		{3, level{85, true, 0, sourceHost}, ""}, // not over yet
		{4, level{91, true, 0, sourceHost}, ""},
		{11, level{91, true, 0, sourceHost}, "memory at 91% of its limit"},
		{12, level{80, true, 19, sourceHost}, ""},
		{13, level{80, true, 0, sourceHost}, ""}, // over
		{14, level{92, true, 0, sourceHost}, "memory at 92% of its limit"},
		{15, level{10, true, 0, sourceHost}, ""},
		{16, level{99, false, 25, sourceCgroup}, "processes wait for memory 25% of the time (cgroup)"},
		{17, level{99, false, 0, ""}, ""},
	} {
		require.Equal(t, step.cause, p.look(now.Add(step.at*time.Second), step.l), "at %d s", step.at)
	}
	require.Contains(t, p.status().Reason, "no memory limit")
	require.Nil(t, p.status().MemoryPercent)
}

func TestPressureStatusNamesTheFallback(t *testing.T) {
	p := pressure{limits: config.Pressure{Stalled: 20}}
	p.look(time.Now(), level{stalled: 3, source: sourceHost})
	require.Equal(t, "host", p.status().StalledSource)
	require.Contains(t, p.status().Reason, "whole host")
	p.look(time.Now(), level{})
	require.Contains(t, p.status().Reason, "no pressure stall information")
}

func TestPressureIsScheduled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, map[string]string{config.KeyOnPressure: "memory=90"})
		b.run(t, 35*time.Second, func() {
			time.Sleep(time.Second)
			for range 120 { // half a minute at the limit
				b.felt(time.Now(), level{memory: 95, limited: true})
				time.Sleep(lookoutInterval)
			}
			b.felt(time.Now(), level{memory: 10, limited: true})
		})
		require.Equal(t, seconds(1, 11, 21), b.at)
		require.Equal(t, "memory at 95% of its limit", b.causes[0])
	})
}
