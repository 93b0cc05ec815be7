package shim

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadOnlyMappings(t *testing.T) {
	const maps = `00400000-00b00000 r-xp 00000000 fe:00 1 /usr/bin/shim
00b00000-01300000 r--p 00700000 fe:00 1 /usr/bin/shim
01300000-01350000 rw-p 00f00000 fe:00 1 /usr/bin/shim
01350000-01400000 rw-p 00000000 00:00 0 
7f00000000-7f00001000 r--p 00000000 fe:00 2 /usr/bin/other
7ffd0000-7ffd1000 r-xp 00000000 00:00 0 [vdso]
`
	require.Equal(t, []mapping{{0x400000, 0xb00000}, {0xb00000, 0x1300000}}, readOnly(maps, "/usr/bin/shim"))
}

// TestUnmapUnused: the process goes on, with fewer pages of its binary.
func TestUnmapUnused(t *testing.T) {
	before := residentFile(t)
	require.NoError(t, unmapUnused())
	require.Less(t, residentFile(t), before)
}

// residentFile is RssFile of proc_pid_status(5), in kB.
func residentFile(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	_, rest, ok := strings.Cut(string(data), "RssFile:")
	require.True(t, ok)
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	require.NoError(t, err)
	return kb
}
