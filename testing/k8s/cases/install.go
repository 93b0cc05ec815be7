package cases

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/crsc-io/crsc/testing/k8s/cluster"
)

// install puts crsc onto the node the way a user would.
func install(t *T) {
	// make and go keep what they know where the caller of the test has it.
	t.document("image", "HOME="+os.Getenv("HOME"))
	t.document("install")
	t.installed()
	t.check(t.c.Containerd.Starts() == 2, "containerd was started %d times, not once more", t.c.Containerd.Starts())
}

// installed waits until the node says that crsc is on it.
func (t *T) installed() {
	t.await(func(ctx context.Context) error {
		out, err := t.c.Kubectl(ctx, "get", "node", cluster.NodeName, "-o", `jsonpath={.metadata.labels.crsc\.io/installed}`)
		if err == nil && strings.TrimSpace(out) != "true" {
			logs, _ := t.c.Kubectl(ctx, "logs", "-n", "crsc-system", "daemonset/crsc-node", "--all-containers")
			err = fmt.Errorf("the node has no label crsc.io/installed: %s", strings.TrimSpace(logs))
		}
		return err
	})
}

// installChart is install with Helm, on a node that has had crsc.
func installChart(t *T) {
	if _, err := os.Lstat("/opt/crsc"); err == nil {
		t.document("uninstall")
	}
	starts := t.c.Containerd.Starts()
	t.document("helm")
	t.installed()
	t.check(t.c.Containerd.Starts() == starts+1, "containerd was started %d times, not once", t.c.Containerd.Starts()-starts)
	ns := t.namespace()
	t.apply(ns, redisDeployment)
	p := t.only(ns, "app=redis")
	p.protected("redis")
	t.worst("recovery_ms", p.kill("redis"))
	t.kubectl("delete", "-n", ns, "deployment/redis", "--timeout=50s")
	t.document("helm-uninstall")
	t.document("uninstall")
	t.removed()
}
