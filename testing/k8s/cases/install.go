package cases

import (
	"context"
	"fmt"
	"strings"

	"github.com/crsc-io/crsc/testing/k8s/cluster"
)

// install puts crsc onto the node the way a user would.
func install(t *T) {
	t.document("install")
	t.await(func(ctx context.Context) error {
		out, err := t.c.Kubectl(ctx, "get", "node", cluster.NodeName, "-o", `jsonpath={.metadata.labels.crsc\.io/installed}`)
		if err == nil && strings.TrimSpace(out) != "true" {
			logs, _ := t.c.Kubectl(ctx, "logs", "-n", "crsc-system", "daemonset/crsc-node", "--all-containers")
			err = fmt.Errorf("the node has no label crsc.io/installed: %s", strings.TrimSpace(logs))
		}
		return err
	})
	t.check(t.c.Containerd.Starts() == 2, "containerd was started %d times, not once more", t.c.Containerd.Starts())
}
