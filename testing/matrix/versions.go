package matrix

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Pair is a containerd and a runc.
type Pair struct {
	Containerd string `json:"containerd"`
	Runc       string `json:"runc"`
}

func (p Pair) String() string { return "containerd " + p.Containerd + ", runc " + p.Runc }

// Pairs lists all pairs of testing/env/versions in the clone, the oldest first.
func Pairs(root string) ([]Pair, error) {
	data, err := os.ReadFile(filepath.Join(root, "testing", "env", "versions"))
	if err != nil {
		return nil, err
	}
	daemons, err := list(string(data), "MATRIX_CONTAINERD")
	if err != nil {
		return nil, err
	}
	runcs, err := list(string(data), "MATRIX_RUNC")
	if err != nil {
		return nil, err
	}
	var out []Pair
	for _, d := range daemons {
		for _, r := range runcs {
			out = append(out, Pair{d, r})
		}
	}
	return out, nil
}

// list reads the value of a shell variable that holds words.
func list(text, name string) ([]string, error) {
	m := regexp.MustCompile(`(?m)^` + name + `="([^"]+)"$`).FindStringSubmatch(text)
	if m == nil {
		return nil, fmt.Errorf("testing/env/versions has no %s", name)
	}
	return strings.Fields(m[1]), nil
}

// dirs are those of the pair's programs, below the directory of ToolsDir.
func (p Pair) dirs(toolsDir string) []string {
	base := filepath.Join(filepath.Dir(toolsDir), "matrix")
	return []string{filepath.Join(base, "containerd-"+p.Containerd), filepath.Join(base, "runc-"+p.Runc)}
}
