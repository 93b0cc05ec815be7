package cases

import (
	"fmt"
	"strings"
	"time"
)

// statefulSet is a Redis whose pods are called redis-0; %s are more annotations
// and more of the container.
const statefulSet = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: redis}
spec:
  serviceName: redis
  selector: {matchLabels: {app: redis}}
  template:
    metadata:
      labels: {app: redis}
      annotations: {crsc.io/checkpoint-restore: "true", crsc.io/checkpoint-interval: 2s%s}
    spec:
      runtimeClassName: crsc
      terminationGracePeriodSeconds: 10
      containers:
      - name: redis
        image: ` + redisImage + `
        imagePullPolicy: IfNotPresent
        readinessProbe: {tcpSocket: {port: 6379}, periodSeconds: 1}
        volumeMounts: [{name: data, mountPath: /data}]
        %s
      volumes: [{name: data, emptyDir: {}}]
`

// redis runs a command of Redis in the pod.
func (p *pod) redis(words ...string) string {
	return p.t.kubectl(append([]string{"exec", "-n", p.ns, p.name, "-c", "redis", "--", "redis-cli"}, words...)...)
}

// replaced deletes the pod and waits for the next one of its name.
func (p *pod) replaced() *pod {
	uid := p.field(".metadata.uid")
	p.t.kubectl("delete", "-n", p.ns, "pod", p.name, "--timeout=50s")
	next := p.t.only(p.ns, "app=redis")
	p.t.check(next.field(".metadata.uid") != uid, "the pod was not replaced")
	return next
}

// freshByDefault: who deletes a pod gets a new one.
func freshByDefault(t *T) {
	ns := t.namespace()
	t.apply(ns, fmt.Sprintf(statefulSet, "", ""))
	p := t.only(ns, "app=redis")
	p.protected("redis")
	l := t.drive(p.ip, 6379, 5, 500)
	for range 2 {
		time.Sleep(500 * time.Millisecond)
		t.worst("recovery_ms", p.kill("redis"))
	}
	t.finish(l)
	p.redis("set", "kept", "yes")
	next := p.replaced()
	t.check(next.redis("get", "kept") == "", "the new pod has the memory of the old one")
	t.noEvents(ns, "Resumed")
}

// acrossPods: with the annotation the next pod of the same name goes on, until
// its template changes.
func acrossPods(t *T) {
	ns := t.namespace()
	const annotation = `, crsc.io/restore-across-pods: "true"`
	t.apply(ns, fmt.Sprintf(statefulSet, annotation, ""))
	p := t.only(ns, "app=redis")
	p.protected("redis")
	run := p.runID()
	for i := range 2 {
		t.check(p.redis("incr", "n") == fmt.Sprint(i+1), "the count is wrong")
		p.redis("config", "set", "hz", "17")
		next := p.replaced()
		t.check(next.runID() == run, "round %d: the new pod runs another Redis: %s", i, next.field(".metadata.annotations"))
		t.check(next.redis("get", "n") == fmt.Sprint(i+1), "what the old pod had is lost")
		p = next
		p.protected("redis")
		t.worst("recovery_ms", p.kill("redis"))
		t.check(p.runID() == run, "a crash of the resumed container was not hidden")
	}
	t.awaitEvents(ns, "Resumed", 2)

	t.apply(ns, fmt.Sprintf(statefulSet, annotation, "env: [{name: CHANGED, value: \"1\"}]"))
	t.kubectl("rollout", "status", "-n", ns, "statefulset/redis", "--timeout=50s")
	p = t.only(ns, "app=redis")
	t.check(p.redis("get", "n") == "", "a pod with another template has resumed")
	message := t.awaitEvents(ns, "NotResumed", 1)[0]
	t.check(strings.Contains(message, "template has changed: another environment"), "event: %s", message)
}

// drain evicts the pod from the node; it resumes when the node is free again.
func drain(t *T) {
	ns := t.namespace()
	t.apply(ns, fmt.Sprintf(statefulSet, `, crsc.io/restore-across-pods: "true"`, ""))
	p := t.only(ns, "app=redis")
	p.protected("redis")
	p.redis("set", "kept", "yes")
	run := p.runID()
	t.kubectl("drain", "node1", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--pod-selector=app=redis", "--timeout=50s")
	t.kubectl("uncordon", "node1")
	next := t.only(ns, "app=redis")
	t.check(next.runID() == run, "the pod did not resume after the drain")
	t.check(next.redis("get", "kept") == "yes", "what the old pod had is lost")
}

// runID tells one start of Redis from another.
func (p *pod) runID() string {
	for line := range strings.Lines(p.redis("info", "server")) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "run_id:"); ok {
			return id
		}
	}
	p.t.fail("Redis tells no run_id")
	return ""
}
