package main

import (
	"bytes"
	"flag"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/status"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// crsc runs a command line and returns its exit code and what it printed, with
// dir replaced by DIR.
func crsc(dir string, args ...string) (code int, out string) {
	var stdout, stderr bytes.Buffer
	code = run(args, &stdout, &stderr)
	out = stdout.String()
	if stderr.Len() > 0 {
		out += "--- stderr\n" + stderr.String()
	}
	if dir != "" {
		out = strings.ReplaceAll(out, dir, "DIR")
	}
	return code, out
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// sample writes a journal with a record of every type and returns its directory.
func sample(t *testing.T) string { return sampleWith(t, nil) }

func sampleWith(t *testing.T, key *journal.Key) string {
	t.Helper()
	now := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	dir := filepath.Join(t.TempDir(), "journal")
	j, err := journal.Open(journal.Options{Dir: dir, SegmentBytes: 4096, Key: key, Now: func() time.Time {
		now = now.Add(1500 * time.Microsecond)
		return now
	}})
	require.NoError(t, err)
	j.AppendMark(journal.ContainerStart, 0)
	j.AppendOpen(journal.ConnOpen{
		Conn: 1, Client: netip.MustParseAddrPort("192.0.2.7:50000"), Server: netip.MustParseAddrPort("10.0.0.2:6379"), LegPort: 20001,
	})
	j.AppendInput(1, 0, 0, []byte("*1\r\n$4\r\nPING\r\n"))
	require.NoError(t, j.Commit())
	j.AppendConsumed(1, 14)
	j.AppendOutput(1, 0, 7, 0xfeed)
	j.AppendOpen(journal.ConnOpen{
		Conn: 2, Direction: journal.Out, Client: netip.MustParseAddrPort("[fd00::2]:40000"), Server: netip.MustParseAddrPort("[2001:db8::1]:443"),
	})
	j.AppendInput(2, 0, 0, []byte("\x1b[2J"+strings.Repeat("x", 100)))
	require.NoError(t, j.Commit())
	j.AppendMark(journal.CheckpointBegun, 3)
	j.AppendOutputBytes(1, 7, []byte("+PONG\r\n"))
	j.AppendClose(1, journal.In, journal.FIN, 14)
	j.AppendClose(2, journal.Out, journal.RST, 0)
	require.NoError(t, j.Commit())
	j.AppendInput(2, 104, 0, bytes.Repeat([]byte{0}, 4000))
	require.NoError(t, j.Commit())
	require.NoError(t, j.Close())
	return dir
}

// segment returns the path of the nth segment file.
func segment(t *testing.T, dir string, n int) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	require.NoError(t, err)
	require.Greater(t, len(files), n)
	return files[n]
}

// patch changes the content of a file.
func patch(t *testing.T, path string, change func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, change(b), 0o600))
}

// snapshot returns everything in dir: names, contents, modes, times.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	require.NoError(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			all[path] = info.ModTime().String()
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = info.Mode().String() + info.ModTime().String() + string(b)
		return err
	}))
	return all
}

func TestDump(t *testing.T) {
	dir := sample(t)
	for name, args := range map[string][]string{
		"dump":         {},
		"dump-payload": {"--payload"},
		"dump-json":    {"--json"},
		"dump-conn":    {"--conn", "2", "--json", "--payload"},
		"dump-from":    {"--from", "200"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out := crsc(dir, append([]string{"journal", "dump", dir}, args...)...)
			require.Equal(t, exitOK, code, out)
			if name == "dump-conn" {
				out = strings.ReplaceAll(out, strings.Repeat("A", 5332), "<5332 A>")
			}
			golden(t, name, out)
		})
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		name   string
		code   int
		damage func(t *testing.T, dir string)
	}{
		{"clean", exitOK, func(*testing.T, string) {}},
		{"torn", exitTornTail, func(t *testing.T, dir string) {
			patch(t, segment(t, dir, 1), func(b []byte) []byte { return b[:len(b)-10] })
		}},
		{"corrupt", exitCorrupt, func(t *testing.T, dir string) {
			patch(t, segment(t, dir, 0), func(b []byte) []byte { b[150] ^= 1; return b })
		}},
		{"unsupported", exitUnsupported, func(t *testing.T, dir string) {
			patch(t, segment(t, dir, 0), func(b []byte) []byte {
				table := crc32.MakeTable(crc32.Castagnoli)
				b[8] = 9
				crc := crc32.Update(crc32.Checksum(b[:12], table), table, b[16:96])
				b[12], b[13], b[14], b[15] = byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24)
				return b
			})
		}},
		{"empty", exitFailure, func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(segment(t, dir, 1)))
			require.NoError(t, os.Remove(segment(t, dir, 0)))
		}},
		{"missing", exitFailure, func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(dir)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := sample(t)
			c.damage(t, dir)
			if c.name != "missing" {
				before := snapshot(t, dir)
				defer func() { require.Equal(t, before, snapshot(t, dir), "nothing may be changed") }()
			}
			code, out := crsc(dir, "journal", "verify", dir)
			require.Equal(t, c.code, code, out)
			golden(t, "verify-"+c.name, out)
			code, out = crsc(dir, "journal", "dump", dir)
			require.Equal(t, c.code, code, out)
			golden(t, "dump-"+c.name, out)
		})
	}
}

// TestEncrypted: the key is found beside the journal, or named.
func TestEncrypted(t *testing.T) {
	key, err := journal.NewKey()
	require.NoError(t, err)
	dir := sampleWith(t, key)
	code, out := crsc(dir, "journal", "verify", dir)
	require.Equal(t, exitOK, code, out)
	require.Contains(t, out, "12 good records")
	require.Contains(t, out, "only the checksums were looked at")
	code, out = crsc(dir, "journal", "dump", dir)
	require.Equal(t, exitNoKey, code, out)
	require.NotContains(t, out, "PING")

	file := filepath.Join(t.TempDir(), "key")
	check := func(want int, args ...string) string {
		code, out := crsc(dir, append([]string{"journal", "dump", dir, "--payload"}, args...)...)
		require.Equal(t, want, code, out)
		return out
	}
	check(exitFailure, "--key", file)
	require.NoError(t, os.WriteFile(file, []byte("nonsense"), 0o600))
	require.Contains(t, check(exitFailure, "--key", file), "hexadecimal")
	other, err := journal.NewKey()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, other.Text(), 0o600))
	require.Contains(t, check(exitNoKey, "--key", file), "another key")
	require.NoError(t, os.WriteFile(file, key.Text(), 0o600))
	require.Contains(t, check(exitOK, "--key", file), "PING")

	beside := filepath.Join(dir, siblingKey)
	require.NoError(t, os.Mkdir(filepath.Dir(beside), 0o700))
	require.NoError(t, os.WriteFile(beside, key.Text(), 0o600))
	require.Contains(t, check(exitOK), "PING")
	code, out = crsc(dir, "journal", "verify", dir)
	require.Equal(t, exitOK, code, out)
	require.NotContains(t, out, "only the checksums")
}

func TestDumpThroughALink(t *testing.T) {
	dir := sample(t)
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	code, out := crsc(dir, "journal", "verify", link)
	require.Equal(t, exitOK, code, out)
}

// TestJournalOfAContainer: the operator names the container, as for other commands.
func TestJournalOfAContainer(t *testing.T) {
	root := stateWith(t, &status.Status{Namespace: "default", ID: "web-1"}, &status.Status{Namespace: "k8s.io", ID: "web-1"},
		&status.Status{Namespace: "k8s.io", ID: "bare"})
	require.NoError(t, os.Rename(sample(t), filepath.Join(root, "k8s.io", "web-1", "journal")))
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"verify", "web-1", "--namespace", "k8s.io"}, exitOK, "12 good records"},
		{[]string{"dump", "we", "--namespace", "k8s.io"}, exitOK, "192.0.2.7:50000"},
		{[]string{"dump", "web-1"}, exitFailure, "default/web-1 or k8s.io/web-1"},
		{[]string{"verify", "db"}, exitFailure, "crsc ps lists them"},
		{[]string{"verify", "./db"}, exitFailure, "no such file or directory"},
		{[]string{"verify", "bare"}, exitFailure, "k8s.io/bare/journal: no such file or directory"},
	} {
		code, out := crsc("", append(append([]string{"journal"}, c.args...), "--state-dir", root)...)
		require.Equal(t, c.code, code, out)
		require.Contains(t, out, c.says, c.args)
	}
}

func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{
		{"journal", "verify"},
		{"journal", "dump", "a", "b"},
		{"journal", "verify", "--bogus", "x"},
		{"bogus"},
		{"journal", "bogus"},
	} {
		code, out := crsc("", args...)
		require.Equal(t, exitFailure, code, "%v: %s", args, out)
		require.Contains(t, out, "--- stderr\ncrsc: ")
	}
	code, out := crsc("", "journal", "--help")
	require.Equal(t, exitOK, code)
	require.Contains(t, out, "dump")
}
