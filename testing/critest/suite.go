package critest

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// suiteLimit bounds one run of the suite; it takes about 75 s on two idle cores.
const suiteLimit = 15 * time.Minute

// spec is the result of one: passed, failed or skipped.
type spec struct {
	Name    string
	Result  string
	Message string
}

// junit is the part of Ginkgo's report that is read.
type junit struct {
	Cases []struct {
		Name   string `xml:"name,attr"`
		Status string `xml:"status,attr"`
		Fail   struct {
			Message string `xml:"message,attr"`
		} `xml:"failure"`
		Error struct {
			Message string `xml:"message,attr"`
		} `xml:"error"`
	} `xml:"testsuite>testcase"`
}

// parseReport reads a JUnit file of Ginkgo. Benchmarks, which the suite filters
// out, and what is not a spec are left out.
func parseReport(r io.Reader) ([]spec, error) {
	var doc junit
	if err := xml.NewDecoder(r).Decode(&doc); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	var out []spec
	for _, c := range doc.Cases {
		name, isSpec := strings.CutPrefix(c.Name, "[It] ")
		if !isSpec {
			if c.Status != "passed" && c.Status != "skipped" {
				return nil, fmt.Errorf("report: %s: %s: %s%s", c.Name, c.Status, c.Fail.Message, c.Error.Message)
			}
			continue
		}
		s := spec{Name: name, Result: c.Status, Message: c.Fail.Message + c.Error.Message}
		switch c.Status {
		case "passed", "skipped", "failed":
		case "pending":
			s.Result = "skipped"
		default: // panicked, timedout, interrupted, aborted
			s.Result, s.Message = "failed", c.Status+": "+s.Message
		}
		out = append(out, s)
	}
	if len(out) == 0 {
		return nil, errors.New("report: no spec in it")
	}
	return out, nil
}

// runSuite runs the specs that match focus (all if it is empty) with a handler,
// in an order that is the same each time. The suite's own log goes to a file.
func (n *node) runSuite(ctx context.Context, handler, focus, log string) ([]spec, error) {
	ctx, cancel := context.WithTimeout(ctx, suiteLimit)
	defer cancel()
	report := filepath.Join(filepath.Dir(n.file), "junit.xml")
	if err := os.RemoveAll(report); err != nil {
		return nil, err
	}
	endpoint := "unix://" + n.daemon.Address
	args := []string{
		"-runtime-endpoint", endpoint, "-image-endpoint", endpoint, "-runtime-handler", handler,
		"-ginkgo.junit-report", report, "-ginkgo.seed", "1", "-ginkgo.no-color", "-test.timeout", suiteLimit.String(),
	}
	if focus != "" {
		args = append(args, "-ginkgo.focus", focus)
	}
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, filepath.Join(n.env.ToolsDir, "critest"), args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Dir, cmd.Env = filepath.Dir(n.file), append(os.Environ(), "PATH="+n.env.Path())
	failed := cmd.Run() // also when a spec failed
	f, err := os.Open(report)
	if err != nil {
		return nil, fmt.Errorf("critest with %s wrote no report (see %s): %w", handler, log, errors.Join(failed, err))
	}
	defer f.Close()
	specs, err := parseReport(f)
	if err != nil {
		return nil, fmt.Errorf("critest with %s (see %s): %w", handler, log, err)
	}
	return specs, nil
}
