package systemd

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/crsc-io/crsc/testing/isolate"
)

// unifiedVariable tells the isolated program which time it is.
const unifiedVariable = "CRSC_SYSTEMD_UNIFIED"

func TestMain(m *testing.M) {
	flag.Parse()
	runs := []string{"", "1"}
	if !isolate.Outside() {
		runs = []string{os.Getenv(unifiedVariable)}
	}
	worst := 0
	for _, unified := range runs {
		if err := os.Setenv(unifiedVariable, unified); err != nil {
			panic(err)
		}
		inside, status, err := isolate.Enter(isolate.Options{Name: "systemd" + unified, Unified: unified != ""})
		if inside {
			status = m.Run()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "systemd:", err)
			status = max(status, 1)
		}
		worst = max(worst, status)
	}
	os.Exit(worst)
}
