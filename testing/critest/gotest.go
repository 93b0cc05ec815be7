package critest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"github.com/crsc-io/crsc/testing/isolate"
)

// runGoTests runs a Go test binary; what it prints goes to a file.
//
// Errors: it did not come to its end, which the file tells more of.
func runGoTests(cmd *exec.Cmd, log string) ([]spec, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Args = append(cmd.Args, "-test.v", "-test.parallel", "1", "-test.timeout", suiteLimit.String())
	cmd.Dir, cmd.Stdout, cmd.Stderr = isolate.Dir, out, out
	failed := cmd.Run() // also when a test failed
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	specs, err := parseGoTests(out)
	if err != nil {
		return nil, fmt.Errorf("see %s: %w", log, errors.Join(err, failed))
	}
	return specs, nil
}

var goTestResult = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) \(`)

// parseGoTests reads what a Go test binary prints with -test.v. The verdict of
// the whole has to be there: a suite that ended early has run some tests only.
func parseGoTests(r io.Reader) ([]spec, error) {
	var out []spec
	ended := false
	results := map[string]string{"PASS": "passed", "FAIL": "failed", "SKIP": "skipped"}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if m := goTestResult.FindStringSubmatch(line); m != nil {
			out = append(out, spec{Name: m[2], Result: results[m[1]]})
		}
		switch strings.TrimSpace(line) {
		case "PASS", "FAIL":
			ended = true
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if !ended || len(out) == 0 {
		return nil, fmt.Errorf("it ended early, after %d results", len(out))
	}
	return out, nil
}
