package cases

import (
	"context"
	"fmt"
	"strings"
)

const hookedContainer = `
  - name: %s
    image: ` + busyboxImage + `
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "trap 'echo told to end after $n >/dev/termination-log; exit 0' TERM; n=0; while sleep 0.1; do n=$((n+1)); done"]
    lifecycle:
      postStart: {exec: {command: [sh, -c, "echo post-start >/proc/1/fd/1"]}}
      preStop: {exec: {command: [sh, -c, "echo pre-stop >/proc/1/fd/1"]}}
`

// lifecycleHooks: the hooks of a container run once however often it recovers,
// and its last words are read after a recovery, too.
func lifecycleHooks(t *T) {
	ns := t.namespace()
	t.apply(ns, strings.Replace(head, "spec:\n", "spec:\n  restartPolicy: Never\n", 1)+"  containers:"+
		fmt.Sprintf(hookedContainer, "first")+strings.TrimPrefix(fmt.Sprintf(hookedContainer, "second"), "\n"))
	p := t.ready(ns, "p")
	for _, name := range []string{"first", "second"} {
		p.protected(name)
		t.worst("recovery_ms", p.kill(name))
		t.worst("recovery_ms", p.kill(name))
		t.check(p.restarts(name) == "0", "restart count of %s is %s", name, p.restarts(name))
	}
	t.kubectl("exec", "-n", ns, "p", "-c", "first", "--", "kill", "-TERM", "1")
	const state = `.status.containerStatuses[?(@.name=="first")].state.terminated`
	t.await(func(context.Context) error {
		if reason := p.field(state + ".reason"); reason != "Completed" {
			return fmt.Errorf("the first container's end: %q", reason)
		}
		return nil
	})
	var after int
	message := p.field(state + ".message")
	_, err := fmt.Sscanf(message, "told to end after %d", &after)
	t.check(err == nil && after > 0, "the termination message is %q", message)

	log := t.c.Command(t.ctx, "kubectl", "logs", "-n", ns, "-f", "p", "-c", "second")
	var out strings.Builder
	log.Stdout = &out
	t.must(log.Start())
	t.kubectl("delete", "-n", ns, "pod", "p", "--timeout=50s")
	_ = log.Wait() // the pod may be gone before the log's end is seen
	n := countLines([]byte(out.String()))
	t.check(n["post-start"] == 1 && n["pre-stop"] == 1, "the hooks have written %q", out.String())
}

const dyingContainers = `
  - name: log
    image: ` + busyboxImage + `
    imagePullPolicy: IfNotPresent
    terminationMessagePolicy: FallbackToLogsOnError
    command: [sh, -c, "n=0; while sleep 0.2; do n=$((n+1)); echo line $n; done"]
  - name: file
    image: ` + busyboxImage + `
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "n=0; while sleep 0.2; do n=$((n+1)); echo at $n >/dev/termination-log; done"]
`

// terminationMessage: the last words of a container that has crashed too often are
// its own, each line once, though it was recovered before.
func terminationMessage(t *T) {
	ns := t.namespace()
	t.apply(ns, strings.Replace(head, "1s}", "1s, crsc.io/recovery-budget: 1/10m}", 1)+"  containers:"+dyingContainers)
	p := t.ready(ns, "p")
	for _, name := range []string{"log", "file"} {
		p.protected(name)
		t.worst("recovery_ms", p.kill(name))
		p.exceed(name)
	}
	const message = `.status.containerStatuses[?(@.name=="%s")].lastState.terminated.message`
	var n int
	file := p.field(fmt.Sprintf(message, "file"))
	_, err := fmt.Sscanf(file, "at %d", &n)
	t.check(err == nil && n > 0, "the message is %q", file)
	lines := strings.Split(strings.TrimSpace(p.field(fmt.Sprintf(message, "log"))), "\n")
	t.check(len(lines) > 5, "the message is %q", lines)
	lines = lines[1:] // the kubelet may have cut the first
	_, err = fmt.Sscanf(lines[0], "line %d", &n)
	t.must(err)
	for i, line := range lines {
		t.check(line == fmt.Sprintf("line %d", n+i), "line %d of the message is %q: %q", i, line, lines)
	}
}
