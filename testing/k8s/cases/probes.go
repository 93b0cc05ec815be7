package cases

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// probedPod has a probe of each kind, each of which must succeed every second
// and may fail at most once: a second failure restarts the container.
const probedPod = `
apiVersion: v1
kind: Pod
metadata:
  name: probed
  labels: {app: probed}
  annotations: {crsc.io/checkpoint-restore: "true", crsc.io/checkpoint-interval: 1s}
spec:
  runtimeClassName: crsc
  terminationGracePeriodSeconds: 2
  containers:
  - name: app
    image: ` + probedImage + `
    imagePullPolicy: IfNotPresent
    readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 5}
    livenessProbe: {grpc: {port: 9090}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 5}
    startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
`

const execProbedPod = `
apiVersion: v1
kind: Pod
metadata:
  name: probed
  annotations: {crsc.io/checkpoint-restore: "true", crsc.io/checkpoint-interval: 1s}
spec:
  runtimeClassName: crsc
  terminationGracePeriodSeconds: 2
  containers:
  - name: app
    image: ` + probedImage + `
    imagePullPolicy: IfNotPresent
    readinessProbe: {exec: {command: [/probed, check]}, periodSeconds: 1, timeoutSeconds: 5}
    livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 5}
`

func networkProbes(t *T) { t.noEvents(probes(t, probedPod), "Unhealthy") }

// execProbes: what a readiness probe runs at the moment of a crash dies with the
// container, once for each at most. No other probe fails.
func execProbes(t *T) {
	ns := probes(t, execProbedPod)
	failed := 0
	for _, event := range t.events(ns, "Unhealthy") {
		t.check(strings.HasPrefix(event, "probed: Readiness probe failed:"), "event Unhealthy: %s", event)
	}
	// Equal events are one, which counts.
	for _, count := range strings.Fields(t.kubectl("get", "-n", ns, "events", "--field-selector", "reason=Unhealthy", "-o", "jsonpath={.items[*].count}")) {
		n, err := strconv.Atoi(count)
		t.must(err)
		failed += n
	}
	t.check(failed <= kills, "%d readiness probes failed in %d crashes", failed, kills)
	t.figures["failed_probes"] = float64(failed)
}

// kills is how often probes kills the application.
const kills = 4

// probes kills an application that is probed every second, and counts on; it is never
// taken for unready. It returns the namespace.
func probes(t *T, manifest string) string {
	ns := t.namespace()
	t.apply(ns, manifest)
	p := t.ready(ns, "probed")
	p.protected("app")
	watch := p.watchReady()
	for i := range kills {
		t.check(p.count() == 2*i+1, "the count is wrong")
		time.Sleep(1200 * time.Millisecond)
		t.worst("recovery_ms", p.kill("app"))
		t.check(p.count() == 2*i+2, "the count is wrong after the kill")
	}
	time.Sleep(3 * time.Second)
	unready := watch()
	t.figures["unready_ms"] = float64(unready.Milliseconds())
	t.check(unready == 0, "the pod was not ready for %v", unready)
	t.check(p.restarts("app") == "0", "restart count is %s", p.restarts("app"))
	return ns
}

// count asks the application of the pod to count, on a connection of its own.
func (p *pod) count() int {
	n, err := strconv.Atoi(strings.TrimSpace(p.get("/count")))
	p.t.must(err)
	return n
}

func (p *pod) get(path string) string {
	ctx, cancel := context.WithTimeout(p.t.ctx, patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:8080%s", p.ip, path), nil)
	p.t.must(err)
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	p.t.must(err)
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	p.t.must(err)
	return string(b)
}

// events lists the messages of the events with a reason.
func (t *T) events(ns, reason string) []string {
	out := t.kubectl("get", "-n", ns, "events", "--field-selector", "reason="+reason, "-o", `jsonpath={range .items[*]}{.involvedObject.name}: {.message}{"\n"}{end}`)
	if out == "" {
		return nil
	}
	return strings.Split(out, "\n")
}

func (t *T) noEvents(ns, reason string) {
	list := t.events(ns, reason)
	t.check(len(list) == 0, "%d events %s: %v", len(list), reason, list)
}

// awaitEvents waits for so many events with a reason.
func (t *T) awaitEvents(ns, reason string, n int) []string {
	var list []string
	t.await(func(context.Context) error {
		if list = t.events(ns, reason); len(list) != n {
			return fmt.Errorf("%d events %s, not %d: %v", len(list), reason, n, list)
		}
		return nil
	})
	return list
}
