package cases

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/crsc-io/crsc/testing/k8s/cluster"
	"github.com/crsc-io/crsc/testing/longrun"
)

// Options say what is run.
type Options struct {
	Out   string // file for the result
	Run   string // regular expression of case names; empty: all
	Shell string // command that is run in the sandbox after the cases
}

// Result is what is written to the file.
type Result struct {
	Passed     int       `json:"passed"`
	Failed     int       `json:"failed"`
	Kubernetes string    `json:"kubernetes"`
	ReadyMS    float64   `json:"ready_ms"` // from nothing to a node that is ready
	Cases      []Outcome `json:"cases"`
}

// Outcome is that of one case. Figures are what it measured.
type Outcome struct {
	Name    string             `json:"name"`
	Passed  bool               `json:"passed"`
	Error   string             `json:"error,omitempty"`
	Seconds float64            `json:"seconds"`
	Figures map[string]float64 `json:"figures,omitempty"`
}

// testCase is one promise. The first case of the table is always run.
type testCase struct {
	name string
	run  func(*T)
}

// caseTimeout bounds one case.
const caseTimeout = 4 * time.Minute

// Run starts a cluster in the sandbox whose directory dir is, runs the cases
// and writes the result. It reports whether all passed.
func Run(ctx context.Context, dir string, o Options) (ok bool, err error) {
	filter, err := regexp.Compile(o.Run)
	if err != nil {
		return false, err
	}
	logs, err := filepath.Abs(strings.TrimSuffix(o.Out, ".json") + "-logs")
	if err != nil {
		return false, err
	}
	if err := errors.Join(os.RemoveAll(logs), os.MkdirAll(logs, 0o755)); err != nil {
		return false, err
	}
	start := time.Now()
	c, err := cluster.Start(ctx, dir, logs)
	if err != nil {
		return false, fmt.Errorf("cluster: %w (logs in %s)", err, logs)
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	r := Result{ReadyMS: float64(time.Since(start).Milliseconds())}
	if r.Kubernetes, err = c.Kubectl(ctx, "get", "node", cluster.NodeName, "-o", "jsonpath={.status.nodeInfo.kubeletVersion}"); err != nil {
		return false, err
	}
	fmt.Printf("node ready after %.1f s\n", r.ReadyMS/1000)
	if err := importImages(ctx, c); err != nil {
		return false, fmt.Errorf("images: %w", err)
	}
	for i, tc := range table() {
		if i > 0 && !filter.MatchString(tc.name) {
			continue
		}
		out := runCase(ctx, c, tc)
		r.Cases = append(r.Cases, out)
		if out.Passed {
			r.Passed++
			fmt.Printf("ok    %-28s %5.1f s  %s\n", out.Name, out.Seconds, figures(out.Figures))
			continue
		}
		r.Failed++
		fmt.Printf("FAIL  %-28s %5.1f s  %s\n", out.Name, out.Seconds, out.Error)
		if i == 0 {
			break
		}
	}
	if o.Shell != "" {
		cmd := c.Command(ctx, "/bin/bash", "-c", o.Shell)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			fmt.Println("shell:", err)
		}
	}
	fmt.Printf("%d passed, %d failed; %s\n", r.Passed, r.Failed, o.Out)
	return r.Failed == 0, longrun.WriteJSON(o.Out, r)
}

func runCase(ctx context.Context, c *cluster.Cluster, tc testCase) (out Outcome) {
	ctx, cancel := context.WithTimeout(ctx, caseTimeout)
	defer cancel()
	t := &T{ctx: ctx, c: c, name: tc.name, figures: map[string]float64{}}
	start := time.Now()
	defer func() {
		if err := t.cleanUp(); err != nil && out.Error == "" {
			out.Error = "cleaning up: " + err.Error()
		}
		out.Seconds = time.Since(start).Seconds()
		out.Passed = out.Error == ""
		out.Figures = t.figures
	}()
	out.Name = tc.name
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			out.Error = string(r)
		default:
			out.Error = fmt.Sprintf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	tc.run(t)
	return out
}

func figures(m map[string]float64) string {
	var words []string
	for k, v := range m {
		words = append(words, fmt.Sprintf("%s=%.4g", k, v))
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}
