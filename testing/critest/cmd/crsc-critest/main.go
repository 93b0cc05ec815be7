// The command crsc-critest is what make critest runs.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/crsc-io/crsc/testing/critest"
	"github.com/crsc-io/crsc/testing/isolate"
	"github.com/crsc-io/crsc/testing/longrun"
)

func main() {
	o := critest.Options{Progress: os.Stderr}
	out := flag.String("out", "out/critest.json", "`file` for the result; logs go beside it")
	suite := flag.String("suite", "cri", "cri; containerd's own tests: client of a runtime, criserver of its CRI plugin")
	handlers := flag.String("handlers", "crsc,crsc-protected", "`names` of what to compare with runc")
	flag.StringVar(&o.Focus, "focus", "", "only specs that match this regular `expression`")
	flag.StringVar(&o.Program, "program", "bin/testing/critest-program", "the built testing/critest/program")
	flag.Parse()
	suites := map[string]func(context.Context, critest.Options) (*critest.Report, error){"cri": critest.Run, "client": critest.RunClient, "criserver": critest.RunCRIServer}
	if suites[*suite] == nil {
		fmt.Fprintf(os.Stderr, "critest: unknown suite %q (there are cri, client and criserver)\n", *suite)
		os.Exit(2)
	}
	inside, status, err := isolate.Enter(isolate.Options{Name: "critest"})
	if inside {
		o.Handlers, o.LogDir = strings.Split(*handlers, ","), filepath.Dir(*out)
		status, err = run(suites[*suite], o, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "critest:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}

// run fails also when there is a difference.
func run(suite func(context.Context, critest.Options) (*critest.Report, error), o critest.Options, out string) (status int, err error) {
	if err := os.MkdirAll(o.LogDir, 0o755); err != nil {
		return 1, err
	}
	report, err := suite(context.Background(), o)
	if report == nil {
		return 1, err
	}
	report.WriteText(os.Stdout)
	if werr := longrun.WriteJSON(out, report); err == nil {
		err = werr
	}
	return min(len(report.Diffs), 1), err
}
