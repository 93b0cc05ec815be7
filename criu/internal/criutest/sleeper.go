package criutest

import (
	"os"
	"os/exec"
	"testing"
)

// Sleeper starts a process that holds files open from descriptor 3 on, until
// the test ends.
func Sleeper(t testing.TB, files []*os.File) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(Tool(t, "busybox"), "sleep", "1000")
	cmd.ExtraFiles = files
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for _, f := range files {
			f.Close()
		}
	})
	return cmd
}
