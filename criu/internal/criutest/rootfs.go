package criutest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// Rootfs builds a root file system with Debian's redis-server and a busybox
// shell, and returns its path.
func Rootfs(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{"bin", "data", "dev", "etc", "lib64", "proc", "run", "sys", "tmp", "usr/bin", "var/lib"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	busybox := Tool(t, "busybox")
	copyFile(t, busybox, filepath.Join(root, "bin/busybox"))
	for _, name := range []string{"sh", "sleep", "cat", "stat", "ls", "mount", "echo", "tty", "hostname", "grep", "date", "su", "touch"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	passwd := []byte("root:x:0:0::/:/bin/sh\nuser:x:1000:1001::/:/bin/sh\n")
	if err := os.WriteFile(filepath.Join(root, "etc/passwd"), passwd, 0o644); err != nil {
		t.Fatal(err)
	}
	redis := Tool(t, "redis-server")
	copyFile(t, redis, filepath.Join(root, "usr/bin/redis-server"))
	for _, lib := range libraries(t, redis) {
		copyFile(t, lib, filepath.Join(root, lib))
	}
	return root
}

var libraryPath = regexp.MustCompile(`(?m)(/\S+) \(0x`)

func libraries(t testing.TB, binary string) []string {
	t.Helper()
	out, err := exec.Command("ldd", binary).Output()
	if err != nil {
		t.Fatalf("ldd %s: %v", binary, err)
	}
	var libs []string
	for _, m := range libraryPath.FindAllStringSubmatch(string(out), -1) {
		libs = append(libs, m[1])
	}
	return libs
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}
