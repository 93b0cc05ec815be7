package cases

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/crsc-io/crsc/status"
)

const head = `
apiVersion: v1
kind: Pod
metadata:
  name: p
  annotations: {crsc.io/checkpoint-restore: "true", crsc.io/checkpoint-interval: 1s}
spec:
  runtimeClassName: crsc
  terminationGracePeriodSeconds: 2
`

const probedContainer = `
  - name: app
    image: ` + probedImage + `
    imagePullPolicy: IfNotPresent
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
`

// countsThroughKill kills the protected container of a pod and counts on.
func (p *pod) countsThroughKill(times int) {
	n := p.count()
	for range times {
		time.Sleep(200 * time.Millisecond)
		p.t.worst("recovery_ms", p.kill("app"))
		n++
		got := p.count()
		p.t.check(got == n, "the count is %d after the kill, not %d", got, n)
	}
	p.t.check(p.restarts("app") == "0", "restart count is %s", p.restarts("app"))
}

// sidecars: of two containers, an init container and a sidecar only one is
// protected, and the others notice nothing of its crashes.
func sidecars(t *T) {
	ns := t.namespace()
	t.apply(ns, strings.Replace(head, "1s}", "1s, crsc.io/containers: app}", 1)+`
  volumes: [{name: shared, emptyDir: {}}]
  initContainers:
  - name: prepare
    image: `+busyboxImage+`
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "echo prepared >/shared/it"]
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: sidecar
    image: `+busyboxImage+`
    imagePullPolicy: IfNotPresent
    restartPolicy: Always
    command: [sh, -c, "while sleep 1; do echo alive; done"]
  containers:
  - name: other
    image: `+redisImage+`
    imagePullPolicy: IfNotPresent
    volumeMounts: [{name: shared, mountPath: /shared}]
`+strings.TrimPrefix(probedContainer, "\n"))
	p := t.ready(ns, "p")
	p.protected("app")
	l := t.drive(p.ip, 6379, 4, 200)
	sidecar := p.init("sidecar")
	p.countsThroughKill(3)
	t.finish(l)
	t.check(p.init("sidecar") == sidecar, "the sidecar was started again")
	for _, name := range []string{"other", "sidecar", "prepare"} {
		_, err := status.Read(p.stateDir(name))
		t.check(err != nil, "container %s has a status, though it is not named in crsc.io/containers", name)
	}
	t.check(t.kubectl("exec", "-n", ns, "p", "-c", "other", "--", "cat", "/shared/it") == "prepared", "the init container's file is gone")
	t.check(p.restarts("other") == "0", "restart count of the other is %s", p.restarts("other"))
}

// twoProtected: two containers of one pod are protected, each by itself.
func twoProtected(t *T) {
	ns := t.namespace()
	t.apply(ns, head+`
  containers:
  - name: redis
    image: `+redisImage+`
    imagePullPolicy: IfNotPresent
`+strings.TrimPrefix(probedContainer, "\n"))
	p := t.ready(ns, "p")
	p.protected("app")
	p.protected("redis")
	l := t.drive(p.ip, 6379, 4, 200)
	p.countsThroughKill(2)
	t.worst("redis_recovery_ms", p.kill("redis"))
	p.countsThroughKill(1)
	time.Sleep(time.Second)
	t.finish(l)
	t.check(p.restarts("redis") == "0", "restart count of redis is %s", p.restarts("redis"))
}

// restricted: a pod that the Pod Security standard "restricted" admits is
// protected like any other.
func restricted(t *T) {
	ns := t.namespace("pod-security.kubernetes.io/enforce=restricted")
	t.apply(ns, head+`
  securityContext:
    runAsNonRoot: true
    runAsUser: 1000
    runAsGroup: 1000
    seccompProfile: {type: RuntimeDefault}
  containers:`+probedContainer+`
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
`)
	p := t.ready(ns, "p")
	p.protected("app")
	p.countsThroughKill(2)
}

// hostNetwork, hostPID and sharedPID are pods that can't be protected: they run, and an
// Event says why they are not.
func hostNetwork(t *T) { t.unprotected("hostNetwork: true", "network namespace") }
func hostPID(t *T)     { t.unprotected("hostPID: true", "PID namespace") }
func sharedPID(t *T)   { t.unprotected("shareProcessNamespace: true", "PID namespace") }

func (t *T) unprotected(spec, reason string) {
	ns := t.namespace("pod-security.kubernetes.io/enforce=privileged")
	t.apply(ns, head+"  "+spec+"\n  containers:"+probedContainer)
	p := t.ready(ns, "p")
	t.check(p.count() == 1, "the application does not work")
	message := t.awaitEvents(ns, "Unprotected", 1)[0]
	t.check(strings.Contains(message, reason), "the event does not name the %s: %s", reason, message)
}

// userNamespace kills a Redis of a pod with a user namespace of its own five times
// under load. It writes to a volume, of which the mount maps the users.
func userNamespace(t *T) {
	ns := t.namespace()
	t.apply(ns, head+`
  hostUsers: false
  volumes: [{name: data, emptyDir: {}}]
  containers:
  - name: redis
    image: `+redisImage+`
    imagePullPolicy: IfNotPresent
    args: ["--appendonly", "yes"]
    volumeMounts: [{name: data, mountPath: /data}]
    readinessProbe: {exec: {command: [redis-cli, ping]}, periodSeconds: 1}
`)
	p := t.ready(ns, "p")
	p.protected("redis")
	who := p.users()
	t.check(len(strings.Fields(who)) == 3 && strings.Fields(who)[1] != "0", "the users are the host's: %s", who)
	l := t.drive(p.ip, 6379, 5, 500)
	for range 5 {
		time.Sleep(time.Second)
		t.worst("recovery_ms", p.kill("redis"))
		t.check(p.users() == who, "the users have changed")
	}
	time.Sleep(time.Second)
	r := t.finish(l)
	t.figures["acknowledged"] = float64(r.Acknowledged)
	t.worst("stall_ms", r.LatencyMS.Max)
	t.check(p.restarts("redis") == "0", "restart count is %s", p.restarts("redis"))
}

// userNamespaceSuccessors: what takes the place of a container with a user
// namespace resumes, in the same pod and in the next, whose users are others.
func userNamespaceSuccessors(t *T) {
	ns := t.namespace()
	set := fmt.Sprintf(statefulSet, `, crsc.io/restore-across-pods: "true", crsc.io/recovery-budget: 1/10m`, `args: ["--appendonly", "yes"]`)
	t.apply(ns, strings.Replace(set, "runtimeClassName: crsc", "runtimeClassName: crsc\n      hostUsers: false", 1))
	p := t.only(ns, "app=redis")
	p.protected("redis")
	run, who := p.runID(), p.users()
	p.counts(1)
	t.worst("recovery_ms", p.kill("redis"))
	p = p.exceed("redis")
	t.check(p.runID() == run, "the new container runs another Redis")
	p.counts(2)
	next := p.replaced()
	t.check(next.runID() == run, "the new pod runs another Redis: %s", next.protected("redis").NotResumed)
	t.check(next.users() != who, "the new pod has the users of the old one: nothing is tested")
	next.protected("redis")
	next.counts(3)
	t.worst("recovery_ms", next.kill("redis"))
	next.counts(4)
}

// counts makes a Redis count, and waits for the checkpoint that has it: what an
// exec has asked for is not journaled.
func (p *pod) counts(want int) {
	last := p.status("redis").Checkpoints.Last.Sequence
	got := p.redis("incr", "n")
	p.t.check(got == strconv.Itoa(want), "it counts %s, and %d is next", got, want)
	p.t.await(func(context.Context) error {
		if c := p.status("redis").Checkpoints; c.Last.Sequence <= last+1 {
			return fmt.Errorf("no checkpoint after %d: %s", last, c.LastError)
		}
		return nil
	})
}

// terminal kills a Redis with a terminal under load.
func terminal(t *T) {
	ns := t.namespace()
	t.apply(ns, head+`
  containers:
  - name: redis
    image: `+redisImage+`
    imagePullPolicy: IfNotPresent
    tty: true
    stdin: true
    readinessProbe: {exec: {command: [redis-cli, ping]}, periodSeconds: 1}
`)
	p := t.ready(ns, "p")
	p.protected("redis")
	l := t.drive(p.ip, 6379, 5, 500)
	for range 3 {
		time.Sleep(time.Second)
		t.worst("recovery_ms", p.kill("redis"))
	}
	t.finish(l)
	const line = "Ready to accept connections"
	logs := t.kubectl("logs", "-n", ns, "p")
	t.check(strings.Count(logs, line) == 1, "the log has %q %d times", line, strings.Count(logs, line))
	t.check(p.restarts("redis") == "0", "restart count is %s", p.restarts("redis"))
}

// users returns the map of the user namespace of a pod of one container.
func (p *pod) users() string {
	return p.t.kubectl("exec", "-n", p.ns, p.name, "--", "cat", "/proc/1/uid_map")
}

// refused: a pod with a malformed annotation does not start, and an Event says
// which it is.
func refused(t *T) {
	ns := t.namespace()
	t.apply(ns, strings.Replace(head, "1s}", "1s, crsc.io/order: sideways}", 1)+"  containers:"+probedContainer)
	t.await(func(ctx context.Context) error {
		out, err := t.c.Kubectl(ctx, "get", "-n", ns, "events", "-o", `jsonpath={range .items[?(@.type=="Warning")]}{.message}{"\n"}{end}`)
		if err == nil && !strings.Contains(out, `crsc.io/order="sideways"`) {
			err = fmt.Errorf("no event names the annotation: %s", out)
		}
		return err
	})
	running := t.field(ns, "pod/p", ".status.containerStatuses[*].state.running")
	t.check(running == "", "the pod runs: %s", running)
}
