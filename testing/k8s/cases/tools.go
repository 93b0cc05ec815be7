package cases

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/crsc-io/crsc/testing/k8s/cluster"
)

// operatorTools uses what people look into pods with, before and after a crash;
// and what the crash leaves in the log and among the events.
func operatorTools(t *T) {
	ns := t.namespace()
	t.apply(ns, execProbedPod)
	p := t.ready(ns, "probed")
	p.protected("app")
	t.kubectl("debug", "-n", ns, "probed", "--image="+busyboxImage, "--image-pull-policy=IfNotPresent", "-c", "look", "--", "sleep", "1000")
	p.ephemeral("look")
	var before usage
	for round := range 3 {
		if round > 0 {
			p.kill("app")
		}
		before = p.usage(before)
		out := t.kubectl("exec", "-n", ns, "probed", "-c", "look", "--", "wget", "-qO-", "http://127.0.0.1:8080/healthz")
		t.check(out == "ok", "the ephemeral container sees %q", out)
		for range 10 {
			p.count()
		}
		t.kubectl("exec", "-n", ns, "probed", "-c", "app", "--", "/probed", "check")
		t.copies(ns, round)
		t.forwards(ns)
	}
	var logged map[string]int
	t.await(func(ctx context.Context) error {
		out, err := t.c.Kubectl(ctx, "logs", "-n", ns, "probed", "-c", "app")
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
	t.awaitEvents(ns, "Protected", 2) // app and look
	t.check(p.restarts("app") == "0", "restart count is %s", p.restarts("app"))
}

// insidePID looks into a container from one that shares its PID namespace: that is
// no obstacle to checkpoints, and ends with the namespace when the application
// crashes, as with any runtime.
func insidePID(t *T) {
	ns := t.namespace()
	t.apply(ns, execProbedPod)
	p := t.ready(ns, "probed")
	p.protected("app")
	t.kubectl("debug", "-n", ns, "probed", "--image="+busyboxImage, "--image-pull-policy=IfNotPresent", "-c", "inside", "--target=app", "--", "sleep", "1000")
	p.ephemeral("inside")
	out := t.kubectl("exec", "-n", ns, "probed", "-c", "inside", "--", "cat", "/proc/1/cmdline")
	t.check(strings.HasPrefix(out, "/probed"), "process 1 is %q", out)
	last := p.status("app").Checkpoints.Last.Sequence
	t.await(func(context.Context) error {
		if s := p.status("app"); s.Checkpoints.Last.Sequence <= last+1 {
			return fmt.Errorf("no checkpoint after %d: %s", last, s.Checkpoints.LastError)
		}
		return nil
	})
	p.countsThroughKill(2)
}

// ephemeral waits until a container that was added to the pod runs.
func (p *pod) ephemeral(name string) {
	p.t.await(func(context.Context) error {
		out := p.field(fmt.Sprintf(`.status.ephemeralContainerStatuses[?(@.name=="%s")].state`, name))
		if !strings.Contains(out, "running") {
			return fmt.Errorf("ephemeral container %s: %s", name, out)
		}
		return nil
	})
}

// usage is what Kubernetes says that a container uses.
type usage struct{ cpuSeconds, bytes float64 }

// usage asks the kubelet for the figures that the metrics server collects. The time
// of the processor goes on counting through a crash.
func (p *pod) usage(before usage) (now usage) {
	p.t.await(func(ctx context.Context) error {
		out, err := p.t.c.Kubectl(ctx, "get", "--raw", "/api/v1/nodes/"+cluster.NodeName+"/proxy/metrics/resource")
		if err != nil {
			return err
		}
		labels := fmt.Sprintf(`{container="app",namespace="%s",pod="%s"}`, p.ns, p.name)
		now = usage{metric(out, "container_cpu_usage_seconds_total"+labels), metric(out, "container_memory_working_set_bytes"+labels)}
		if now.cpuSeconds <= before.cpuSeconds || now.bytes <= 0 {
			return fmt.Errorf("the kubelet says %+v, and has said %+v", now, before)
		}
		return nil
	})
	return now
}

// metric reads one figure in the text format of Prometheus; 0: it is not there.
func metric(text, name string) float64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err == nil {
				return v
			}
		}
	}
	return 0
}

// copies takes a file to the pod and back.
func (t *T) copies(ns string, round int) {
	dir, err := os.MkdirTemp("", "crsc-cp-")
	t.must(err)
	defer os.RemoveAll(dir)
	there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
	text := fmt.Sprintf("round %d\n", round)
	t.must(os.WriteFile(there, []byte(text), 0o600))
	t.kubectl("cp", "-c", "app", there, ns+"/probed:/tmp/copied")
	t.kubectl("cp", "-c", "app", ns+"/probed:/tmp/copied", back)
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
