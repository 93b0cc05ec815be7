package cases

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// podMetrics is what the metrics server says of a pod.
type podMetrics struct {
	Timestamp  time.Time `json:"timestamp"` // of the newest sample; whole seconds
	Containers []struct {
		Name  string            `json:"name"`
		Usage map[string]string `json:"usage"`
	} `json:"containers"`
}

// top is kubectl top with a metrics server, before and after a crash.
func top(t *T) {
	t.must(t.c.StartMetrics(t.ctx))
	t.cleanup(t.c.StopMetrics)
	ns := t.namespace()
	t.apply(ns, execProbedPod)
	p := t.ready(ns, "probed")
	p.protected("app")
	t.figures["before_mib"] = p.kubectlTop(time.Time{})
	t.worst("recovery_ms", p.kill("app"))
	t.figures["after_mib"] = p.kubectlTop(time.Now())
	before, after := t.figures["before_mib"], t.figures["after_mib"]
	t.check(after > before/3 && after < before*3, "kubectl top shows %v MiB before the crash and %v MiB after", before, after)
	t.check(p.restarts("app") == "0", "restart count is %s", p.restarts("app"))
}

// kubectlTop waits until kubectl top shows the container as it is after a moment,
// and returns how much memory that is, in MiB.
func (p *pod) kubectlTop(after time.Time) (mib float64) {
	path := fmt.Sprintf("/apis/metrics.k8s.io/v1beta1/namespaces/%s/pods/%s", p.ns, p.name)
	p.t.must(p.t.c.Await(p.t.ctx, 2*patience, func(ctx context.Context) error {
		out, err := p.t.c.Kubectl(ctx, "get", "--raw", path)
		if err != nil {
			return err
		}
		var m podMetrics
		if err := json.Unmarshal([]byte(out), &m); err != nil {
			return err
		}
		if !m.Timestamp.After(after) || len(m.Containers) != 1 {
			return fmt.Errorf("there is no sample after %v: %s", after, out)
		}
		out, err = p.t.c.Kubectl(ctx, "top", "pod", "-n", p.ns, p.name, "--containers", "--no-headers")
		if err != nil {
			return err
		}
		f := strings.Fields(out)
		if len(f) != 4 || f[0] != p.name || f[1] != "app" || !strings.HasSuffix(f[2], "m") || !strings.HasSuffix(f[3], "Mi") {
			return fmt.Errorf("kubectl top: %q", out)
		}
		if mib, err = strconv.ParseFloat(strings.TrimSuffix(f[3], "Mi"), 64); err == nil && mib <= 0 {
			err = fmt.Errorf("kubectl top: no memory: %q", out)
		}
		return err
	}))
	return mib
}
