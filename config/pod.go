package config

import (
	"fmt"
	"regexp"
	"slices"
)

// The annotations that only containers of a pod have a use for.
const (
	KeyContainers = Prefix + "containers"
	KeyAcrossPods = Prefix + "restore-across-pods"
	KeyOverBudget = Prefix + "over-budget"
)

func podKeys() []key {
	return []key{{
		name: KeyContainers, form: `a comma-separated list of names of containers of the pod such as "app,cache"`, def: "",
		doc: "Which containers of a pod are protected; without it all of them are. Annotations belong to the pod, so this is how to leave a sidecar or an init container alone. It has no effect outside of Kubernetes.",
		parse: func(c *Config, v string) (err error) {
			c.Containers, err = parseNames(v)
			return err
		},
	}, {
		name: KeyAcrossPods, form: `"true" or "false"`, def: "false",
		doc: "When the pod is deleted or evicted, its container goes on in the next pod of the same namespace and name on this node, such as the successor of a StatefulSet's member. A checkpoint is made before the request to stop is delivered (as with `checkpoint-on-stop`), and input that comes after it is not taken any more. The new pod has an address of its own: clients connect again, and the application sees the end of its connections as if clients and servers had gone. Sockets that are bound to the old address keep it, within the pod, and are reached at the new one. A successor with another image, command, environment, mounts or `crsc.io/` annotations starts afresh, and its status and an Event say why. What nobody has resumed within a day is removed.",
		parse: func(c *Config, v string) (err error) {
			c.AcrossPods, err = parseBool(v)
			return err
		},
	}, {
		name: KeyOverBudget, form: `"resume" or "fresh"`, def: "resume",
		doc: "How the container begins that the kubelet starts in the same pod when its predecessor has crashed more often than `recovery-budget` allows: `resume` goes on from the last checkpoint and what came after it, and keeps the connections of clients if it comes within a minute (later they are reset, and the rest is kept); `fresh` runs the program. It begins afresh all the same if its template differs, if nothing of what was kept can be brought back to life, after a container that has resumed and died again at once, as of input that is deadly, and after three in a row that have resumed and exceeded their own budgets, each within the budget's window: the status and an Event say why. It has no effect outside of Kubernetes.",
		parse: func(c *Config, v string) (err error) {
			c.OverBudget, err = oneOf(v, OverBudgetResume, OverBudgetFresh)
			return err
		},
	}}
}

// ProtectsContainer reports whether the pod's container of this name is meant.
func (c *Config) ProtectsContainer(name string) bool {
	return len(c.Containers) == 0 || slices.Contains(c.Containers, name)
}

// parseNames reads a list of DNS labels, as names of containers are.
func parseNames(s string) ([]string, error) {
	label := regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	names := splitList(s)
	for _, n := range names {
		if !label.MatchString(n) {
			return nil, fmt.Errorf("%q %w", shorten(n), errForm)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}
