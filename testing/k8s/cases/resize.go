package cases

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/crsc-io/crsc/internal/cgroups"
)

// resize changes the resources of a running pod, before a crash and after it.
func resize(t *T) {
	ns := t.namespace()
	t.apply(ns, head+"  containers:"+probedContainer+"    resources: {requests: {cpu: 100m, memory: 100Mi}, limits: {cpu: 500m, memory: 200Mi}}\n")
	p := t.ready(ns, "p")
	p.protected("app")
	t.check(p.limits() == "209715200 50000", "the limits are %s", p.limits())
	p.resized("800m", "300Mi", "314572800 80000")
	p.countsThroughKill(2)
	t.check(p.limits() == "314572800 80000", "the limits after a recovery are %s", p.limits())
	p.resized("600m", "250Mi", "262144000 60000")
	p.countsThroughKill(1)
	t.check(p.limits() == "262144000 60000", "the limits after a recovery are %s", p.limits())
}

// limits are those of memory, in bytes, and of the processor, in µs of 100 ms, as
// the kernel has them.
func (p *pod) limits() string {
	groups, err := cgroups.Of(p.init("app"))
	p.t.must(err)
	files := []string{filepath.Join(groups.V1("memory"), "memory.limit_in_bytes"), filepath.Join(groups.V1("cpu"), "cpu.cfs_quota_us")}
	if cgroups.Unified() {
		files = []string{filepath.Join(groups.V2(), "memory.max"), filepath.Join(groups.V2(), "cpu.max")}
	}
	var words []string
	for _, file := range files {
		b, err := os.ReadFile(file)
		p.t.must(err)
		words = append(words, strings.Fields(string(b))[0])
	}
	return strings.Join(words, " ")
}

// resized changes the limits, and waits until they are in force.
func (p *pod) resized(cpu, memory, want string) {
	p.t.kubectl("patch", "-n", p.ns, "pod", p.name, "--subresource", "resize", "-p",
		fmt.Sprintf(`{"spec":{"containers":[{"name":"app","resources":{"limits":{"cpu":%q,"memory":%q}}}]}}`, cpu, memory))
	p.t.await(func(context.Context) error {
		got := p.limits()
		seen := p.field(`.status.containerStatuses[0].resources.limits.memory`)
		if got != want || seen != memory {
			return fmt.Errorf("the limits are %s, the kubelet says %s", got, seen)
		}
		return nil
	})
}
