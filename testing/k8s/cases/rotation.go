package cases

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rotations is how often the kubelet rotates the log before the writer is ended.
const rotations = 3

// writer writes a megabyte a second.
const writer = `
  containers:
  - name: app
    image: ` + busyboxImage + `
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "trap 'exit 0' TERM; p=$(printf %0400d 0); i=0; while :; do i=$((i+1)); echo line $i $p; [ $((i % 100)) -ne 0 ] || sleep 0.04; done"]
`

// logRotation: the kubelet rotates the log of a container that crashes meanwhile,
// and each line is in one of the files, once and in order.
func logRotation(t *T) {
	ns := t.namespace()
	t.apply(ns, strings.NewReplacer("spec:\n", "spec:\n  restartPolicy: Never\n", "1s}", "1s, crsc.io/recovery-budget: 1000/10m}").Replace(head)+writer)
	p := t.ready(ns, "p")
	p.protected("app")
	dir := filepath.Join("/var/log/pods", fmt.Sprintf("%s_p_%s", ns, p.field(".metadata.uid")), "app")
	for seen := 0; seen < rotations; {
		t.worst("recovery_ms", p.kill("app"))
		time.Sleep(500 * time.Millisecond)
		files, err := filepath.Glob(filepath.Join(dir, "0.log.*"))
		t.must(err)
		seen = len(files)
	}
	t.kubectl("exec", "-n", ns, "p", "--", "kill", "-TERM", "1")
	t.await(func(context.Context) error {
		if phase := p.field(".status.phase"); phase != "Succeeded" {
			return fmt.Errorf("the pod is %s", phase)
		}
		return nil
	})
	line := 0
	for _, name := range rotated(t, dir) {
		for _, m := range regexp.MustCompile(`(?m) stdout F line (\d+) 0+$`).FindAllStringSubmatch(readLog(t, name), -1) {
			n, err := strconv.Atoi(m[1])
			t.must(err)
			line++
			t.check(n == line, "in %s line %d follows line %d", name, n, line-1)
		}
	}
	t.figures["lines"] = float64(line)
	t.check(line > 5000, "there are %d lines only", line)
}

// rotated lists the files of a log, the oldest first.
func rotated(t *T, dir string) []string {
	old, err := filepath.Glob(filepath.Join(dir, "0.log.*"))
	t.must(err)
	slices.Sort(old) // by the time that is part of the name
	return append(old, filepath.Join(dir, "0.log"))
}

func readLog(t *T, name string) string {
	f, err := os.Open(name)
	t.must(err)
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		r, err = gzip.NewReader(f)
		t.must(err)
	}
	b, err := io.ReadAll(r)
	t.must(err)
	return string(b)
}
