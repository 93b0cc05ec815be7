package cases

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// document runs the commands of docs/KUBERNETES.md that have a tag, with more
// environment variables.
func (t *T) document(tag string, env ...string) {
	b, err := os.ReadFile(filepath.Join(t.c.Root, "docs/KUBERNETES.md"))
	t.must(err)
	blocks := regexp.MustCompile("(?ms)^```sh "+tag+"\n(.*?)^```").FindAllSubmatch(b, -1)
	t.check(len(blocks) > 0, "docs/KUBERNETES.md has no commands with the tag %s", tag)
	for _, block := range blocks {
		cmd := t.c.Command(t.ctx, "/bin/bash", "-ec", "set -o pipefail\n"+string(block[1]))
		cmd.Env = append(cmd.Env, env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.diagnose()
			t.fail("commands of docs/KUBERNETES.md: %v:\n%s%s", err, block[1], strings.TrimSpace(string(out)))
		}
	}
}

// walkThrough protects a pod and lets it crash, as the documentation says.
func walkThrough(t *T) {
	if _, err := t.c.Run(t.ctx, "ctr", "images", "tag", redisImage, "docker.io/library/redis:7"); err != nil && !strings.Contains(err.Error(), "already exists") {
		t.must(err)
	}
	t.document("try")
}

// patch gives a workload that knows nothing of crsc the runtime class with the
// documented line; the policy gives it to one that only has the annotation.
func patch(t *T) {
	ns := t.namespace()
	plain := strings.NewReplacer(`        crsc.io/checkpoint-restore: "true"`+"\n", "", "        crsc.io/checkpoint-interval: 2s\n", "",
		"      annotations:\n", "", "      runtimeClassName: crsc\n", "").Replace(redisDeployment)
	t.check(!strings.Contains(plain, "crsc.io") && !strings.Contains(plain, "runtimeClass"), "the manifest is not plain")
	t.apply(ns, plain)
	t.only(ns, "app=redis")
	t.document("patch", "NAMESPACE="+ns)
	t.kubectl("rollout", "status", "-n", ns, "deployment/redis", "--timeout=60s")
	p := t.only(ns, "app=redis")
	p.protected("redis")
	t.check(p.field(".spec.overhead.memory") == "64Mi", "the pod has no overhead: %s", p.field(".spec.overhead"))
	t.check(p.field(`.spec.nodeSelector.crsc\.io/installed`) == "true", "the pod has not the RuntimeClass's node selector")

	t.kubectl("delete", "-n", ns, "deployment/redis", "--timeout=50s")
	t.document("admission")
	t.cleanup(t.deleteAdmission)
	annotated := strings.Replace(redisDeployment, "      runtimeClassName: crsc\n", "", 1)
	t.awaitAdmission(ns)
	t.apply(ns, annotated)
	p = t.only(ns, "app=redis")
	t.check(p.field(".spec.runtimeClassName") == "crsc", "the policy gave no runtime class")
	p.protected("redis")
	p.kill("redis")
	t.check(p.restarts("redis") == "0", "restart count is %s", p.restarts("redis"))
}

// diagnose prints what the pods of crsc-system say.
func (t *T) diagnose() {
	for _, args := range [][]string{{"describe", "pods", "-n", "crsc-system"}, {"logs", "-n", "crsc-system", "-l", "app.kubernetes.io/name", "--all-containers", "--prefix"}} {
		out, err := t.c.Kubectl(context.WithoutCancel(t.ctx), args...)
		fmt.Println(out, err)
	}
}
