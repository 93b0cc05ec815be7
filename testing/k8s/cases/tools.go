package cases

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// operatorTools uses what people look into pods with, before and after a crash;
// and what the crash leaves in the log and among the events.
func operatorTools(t *T) {
	ns := t.namespace()
	t.apply(ns, execProbedPod)
	p := t.ready(ns, "probed")
	p.protected("app")
	for round := range 3 {
		if round > 0 {
			p.kill("app")
		}
		for range 10 {
			p.count()
		}
		t.kubectl("exec", "-n", ns, "probed", "--", "/probed", "check")
		t.copies(ns, round)
		t.forwards(ns)
	}
	var logged map[string]int
	t.await(func(ctx context.Context) error {
		out, err := t.c.Kubectl(ctx, "logs", "-n", ns, "probed")
		if logged = countLines([]byte(out)); err == nil && logged["count 30"] == 0 {
			err = fmt.Errorf("the log ends with %s", lastLine(out))
		}
		return err
	})
	for i := 1; i <= 30; i++ {
		line := fmt.Sprint("count ", i)
		t.check(logged[line] == 1, "the log has the line %q %d times", line, logged[line])
	}
	for _, message := range t.awaitEvents(ns, "Recovered", 2) {
		t.check(strings.HasPrefix(message, "probed: container app: ") && strings.Contains(message, "was hidden in"), "event: %s", message)
	}
	t.awaitEvents(ns, "Protected", 1)
	t.check(p.restarts("app") == "0", "restart count is %s", p.restarts("app"))
}

// copies takes a file to the pod and back.
func (t *T) copies(ns string, round int) {
	dir, err := os.MkdirTemp("", "crsc-cp-")
	t.must(err)
	defer os.RemoveAll(dir)
	there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
	text := fmt.Sprintf("round %d\n", round)
	t.must(os.WriteFile(there, []byte(text), 0o600))
	t.kubectl("cp", there, ns+"/probed:/tmp/copied")
	t.kubectl("cp", ns+"/probed:/tmp/copied", back)
	got, err := os.ReadFile(back)
	t.must(err)
	t.check(string(got) == text, "copied %q, got %q", text, got)
}

// forwards reaches the application through kubectl port-forward.
func (t *T) forwards(ns string) {
	ctx, cancel := context.WithCancel(t.ctx)
	cmd := t.c.Command(ctx, "kubectl", "port-forward", "-n", ns, "pod/probed", "18080:8080")
	t.must(cmd.Start())
	defer func() { cancel(); _ = cmd.Wait() }() // it is killed
	t.await(func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:18080/healthz", nil)
		if err != nil {
			return err
		}
		r.Close = true
		answer, err := (&http.Client{Timeout: 5 * time.Second}).Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		if err == nil && string(b) != "ok\n" {
			err = fmt.Errorf("port-forward: %q", b)
		}
		return err
	})
}
