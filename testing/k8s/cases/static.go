package cases

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/crsc-io/crsc/testing/k8s/cluster"
)

// staticPod: a pod of the kubelet's own, which the API server only mirrors.
func staticPod(t *T) {
	ns := t.namespace()
	file := filepath.Join(cluster.StaticPods, "p.yaml")
	t.cleanup(func(ctx context.Context) error {
		if err := os.Remove(file); err != nil {
			return err
		}
		return t.c.Await(ctx, patience, func(ctx context.Context) error {
			out, err := t.c.Kubectl(ctx, "get", "-n", ns, "pods", "-o", "name")
			if err == nil && out != "" {
				err = fmt.Errorf("still there: %s", out)
			}
			return err
		})
	})
	manifest := strings.Replace(head, "  name: p\n", "  name: p\n  namespace: "+ns+"\n", 1)
	manifest = strings.Replace(manifest, "1s}", "1s, crsc.io/recovery-budget: 1/10m}", 1)
	t.must(os.WriteFile(file, []byte(manifest+"  containers:"+probedContainer), 0o600))
	p := t.ready(ns, "p-"+cluster.NodeName)
	p.protected("app")
	p.countsThroughKill(1)
	n := p.count()
	p = p.exceed("app")
	t.check(p.count() == n+1, "the count does not go on")
	t.awaitEvents(ns, "Recovered", 2)
}
