package lint

import "strings"

// module is the import path of the repository.
const module = "github.com/crsc-io/crsc"

// maxLines is the length of a file from which on it does too much.
const maxLines = 450

// rule says what one part of the tree may import of the others. A part is a
// package together with all packages below it that have no rule of their own.
type rule struct {
	part string
	may  []string // parts; "*" means anything
}

// rules is the map of the repository. Imports point downwards only.
func rules() []rule {
	return []rule{
		{"cmd/containerd-shim-crsc-v1", []string{"shim", "config"}},
		{"cmd/crsc", []string{"journal", "oci", "config", "control", "status", "internal/vfs"}},
		{"cmd/crsc-node", []string{"node", "node/agent", "config"}},
		{"node", []string{"config"}},
		{"node/agent", []string{"control", "status"}},
		{"shim", []string{"shim/task", "shim/lifecycle", "shim/recovery", "netproxy", "criu", "layer", "oci", "journal", "config", "internal/vfs", "internal/cgroups"}},
		{"shim/task", []string{"shim/lifecycle"}},
		{"shim/lifecycle", []string{"config", "internal/cgroups"}},
		{"shim/recovery", []string{"shim/lifecycle", "criu", "layer", "oci", "journal", "netproxy", "config", "control", "status", "internal/vfs", "internal/cgroups"}},
		{"netproxy", []string{"journal", "config", "internal/vfs"}}, // vfs: tests only
		{"criu", nil},
		{"layer", []string{"internal/vfs"}},
		{"oci", []string{"internal/vfs"}},
		{"journal", []string{"internal/vfs"}},
		{"config", nil},
		{"control", []string{"status"}},
		{"status", nil},
		{"internal/vfs", nil},
		{"internal/cgroups", nil},
		{"deploy", []string{"testing"}},
		{"testing", []string{"*"}},
	}
}

// banned are packages of others that promise no stability.
func banned() []string {
	return []string{
		"github.com/containerd/containerd/v2/cmd",
		"github.com/containerd/containerd/v2/internal",
		"github.com/containerd/containerd/v2/integration",
	}
}

// partOf returns the rule for a package, given by its path in the repository.
func partOf(table []rule, pkg string) (rule, bool) {
	best, found := rule{}, false
	for _, r := range table {
		if inside(pkg, r.part) && len(r.part) >= len(best.part) {
			best, found = r, true
		}
	}
	return best, found
}

// inside reports whether path is dir or below it.
func inside(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// forbidden says why pkg must not import path; empty: it may. Tests may also
// import the test environment.
func forbidden(table []rule, pkg, path string, test bool) string {
	for _, b := range banned() {
		if inside(path, b) {
			return "it is not a stable API"
		}
	}
	if !inside(path, module) {
		return ""
	}
	target := strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
	from, ok := partOf(table, pkg)
	if !ok {
		return "package " + pkg + " is not on the map (testing/lint/rules.go)"
	}
	to, ok := partOf(table, target)
	if !ok {
		return "package " + target + " is not on the map (testing/lint/rules.go)"
	}
	if from.part == to.part || test && to.part == "testing" {
		return ""
	}
	for _, allowed := range from.may {
		if allowed == "*" || allowed == to.part {
			return ""
		}
	}
	return "the map lets " + from.part + " import only " + orNothing(from.may)
}

func orNothing(parts []string) string {
	if len(parts) == 0 {
		return "nothing of ours"
	}
	return strings.Join(parts, ", ")
}
