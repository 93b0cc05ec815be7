package cases

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/crsc-io/crsc/status"
)

// tenants: the node's configuration decides what annotations may say, with the
// very text of docs/KUBERNETES.md.
func tenants(t *T) {
	b, err := os.ReadFile(filepath.Join(t.c.Root, "docs/KUBERNETES.md"))
	t.must(err)
	block := regexp.MustCompile("(?ms)^```toml\n(.*?)^```").FindSubmatch(b)
	t.check(block != nil, "docs/KUBERNETES.md has no configuration")
	before := t.field("crsc-system", "configmap/crsc-config", `.data.config\.toml`)
	t.configure(t.ctx, before+"\n"+string(block[1]))
	t.cleanup(func(ctx context.Context) error { t.configure(ctx, before+"\n"); return nil })

	ns := t.namespace()
	for annotation, reason := range map[string]string{
		`crsc.io/publish: "true"`:       "crsc.io/publish",
		"crsc.io/restore-from: latest":  "crsc.io/restore-from",
		"crsc.io/journal-max-size: 1Gi": "512",
		"crsc.io/journal-max-size: 1Ti": "512",
	} {
		t.apply(ns, strings.Replace(head, "1s}", "1s, "+annotation+"}", 1)+"  containers:"+probedContainer)
		t.await(func(ctx context.Context) error {
			out, err := t.c.Kubectl(ctx, "get", "-n", ns, "events", "-o", `jsonpath={range .items[?(@.type=="Warning")]}{.message}{"\n"}{end}`)
			key, _, _ := strings.Cut(annotation, ":")
			if err == nil && (!strings.Contains(out, key) || !strings.Contains(out, reason)) {
				err = fmt.Errorf("%s: no event names it: %s", annotation, out)
			}
			return err
		})
		t.check(t.field(ns, "pod/p", ".status.containerStatuses[*].state.running") == "", "the pod with %s runs", annotation)
		t.kubectl("delete", "-n", ns, "pod", "p", "--timeout=50s")
		t.kubectl("delete", "-n", ns, "events", "--all")
	}

	// Within the bounds, and without an interval: the node's default.
	t.apply(ns, strings.Replace(head, "crsc.io/checkpoint-interval: 1s", "crsc.io/journal-max-size: 256Mi", 1)+"  containers:"+probedContainer)
	p := t.ready(ns, "p")
	first := p.protected("app")
	var second *status.Status
	t.await(func(context.Context) error {
		second = p.status("app")
		if second.Checkpoints.Last.Sequence <= first.Checkpoints.Last.Sequence+1 {
			return fmt.Errorf("there is no checkpoint after %d", first.Checkpoints.Last.Sequence)
		}
		return nil
	})
	apart := second.Checkpoints.Last.Time.Sub(first.Checkpoints.Last.Time)
	t.check(apart >= 5*time.Second, "checkpoints come after %v; the node's default interval is 5 s", apart)
}

// configure changes the node file of all nodes, as an administrator would.
func (t *T) configure(ctx context.Context, text string) {
	patch, err := json.Marshal(map[string]any{"data": map[string]string{"config.toml": text}})
	t.must(err)
	for _, args := range [][]string{
		{"patch", "configmap", "crsc-config", "--type=merge", "-p", string(patch)},
		{"rollout", "restart", "daemonset/crsc-node"},
		{"rollout", "status", "daemonset/crsc-node", "--timeout=60s"},
	} {
		_, err := t.c.Kubectl(ctx, append([]string{"-n", "crsc-system"}, args...)...)
		t.must(err)
	}
}
