package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/testing/load"
)

// deaths are signals from outside, and what the status calls them. An init
// that handles them (the test application is written in Go, which does) may
// exit instead: the signals here cannot be handled, or the application makes
// its own exit of them.
func deaths() map[syscall.Signal]string {
	return map[syscall.Signal]string{
		syscall.SIGKILL: "signal 9",
		syscall.SIGUSR1: "exit status 3",
		syscall.SIGSEGV: "exit status 2", // the Go runtime's panic
	}
}

func kill(t testing.TB, pid int) {
	t.Helper()
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
}

// children are the living children of a process.
func childrenOf(parent int) []int {
	var out []int
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		text := string(data)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(fields) < 2 || fields[0] == "Z" || fields[1] != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

func (c *container) children() []int {
	c.t.Helper()
	return childrenOf(c.initPid())
}

func (c *container) onlyChild() int {
	c.t.Helper()
	list := c.children()
	require.Len(c.t, list, 1)
	return list[0]
}

// comm is the name of a process; empty if it has ended.
func comm(pid int) string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(data))
}

// driveWhenReady drives a Redis that may not listen yet.
func (c *container) driveWhenReady(o load.Options) *load.Load {
	c.t.Helper()
	c.dial().close()
	return c.drive(o)
}

// httpGet asks for a page and keeps the connection.
func (k *client) httpGet(path string) string {
	k.t.Helper()
	require.NoError(k.t, k.conn.SetDeadline(time.Now().Add(patience)))
	_, err := fmt.Fprintf(k.conn, "GET %s HTTP/1.1\r\nHost: e2e\r\n\r\n", path)
	require.NoError(k.t, err)
	resp, err := http.ReadResponse(k.r, nil)
	require.NoError(k.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(k.t, err)
	require.Equal(k.t, http.StatusOK, resp.StatusCode)
	return string(body)
}

func globbed(t testing.TB, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	require.NoError(t, err)
	return found
}

// lastLine passes over ctr's warnings.
func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
