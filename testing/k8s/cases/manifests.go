package cases

import (
	"context"
	"fmt"
	"strings"
)

// manifests: the API server takes everything in deploy/, and the chart renders
// what kustomize does.
func manifests(t *T) {
	for _, dir := range []string{"common", "base", "state-dir", "admission", "uninstall"} {
		t.kubectl("apply", "--dry-run=server", "-k", "deploy/kustomize/"+dir)
	}
	t.kubectl("apply", "--dry-run=server", "-f", "deploy/examples")
	chart := t.helm("template", "crsc", "deploy/helm/crsc", "-n", "crsc-system", "--kube-version", "1.34.3", "--set", "admissionPolicy.enabled=true")
	t.must(t.c.Apply(t.ctx, chart, "--dry-run=server"))
	t.helm("lint", "--strict", "--kube-version", "1.34.3", "deploy/helm/crsc")

	k0s := t.helm("template", "crsc", "deploy/helm/crsc", "-n", "crsc-system", "--kube-version", "1.34.3", "--set", "containerd.distribution=k0s,containerd.restart=watch")
	t.check(strings.Contains(k0s, "- --distribution=k0s\n") && strings.Contains(k0s, "- --restart=watch\n"), "the distribution is not handed on:\n%s", k0s)

	elsewhere := t.kubectl("kustomize", "deploy/kustomize/state-dir")
	t.check(strings.Count(elsewhere, "/mnt/fast/crsc") == 2 && !strings.Contains(elsewhere, "/var/lib/crsc"), "another state directory is not set in both places:\n%s", elsewhere)

	// What the chart would change of what kustomize has applied: nothing.
	cmd := t.c.Command(t.ctx, "kubectl", "diff", "-f", "-")
	cmd.Stdin = strings.NewReader(t.helm("template", "crsc", "deploy/helm/crsc", "-n", "crsc-system", "--kube-version", "1.34.3"))
	out, err := cmd.CombinedOutput()
	t.check(err == nil, "the chart differs from the kustomize base: %v\n%s", err, out)
}

func (t *T) helm(args ...string) string {
	out, err := t.c.Run(t.ctx, "helm", args...)
	t.must(err)
	return out
}

// awaitAdmission waits until the policy is in force: the API server learns of it
// a moment after it was made.
func (t *T) awaitAdmission(ns string) {
	t.await(func(ctx context.Context) error {
		cmd := t.c.Command(ctx, "kubectl", "create", "--dry-run=server", "-n", ns, "-f", "-", "-o", "jsonpath={.spec.runtimeClassName}")
		cmd.Stdin = strings.NewReader("{apiVersion: v1, kind: Pod, metadata: {name: x, annotations: {crsc.io/checkpoint-restore: \"true\"}}, spec: {containers: [{name: x, image: x}]}}")
		out, err := cmd.CombinedOutput()
		if err == nil && string(out) != "crsc" {
			err = fmt.Errorf("the policy is not in force: runtime class %q", out)
		}
		return err
	})
}

func (t *T) deleteAdmission(ctx context.Context) error {
	_, err := t.c.Kubectl(ctx, "delete", "-k", "deploy/kustomize/admission")
	return err
}
