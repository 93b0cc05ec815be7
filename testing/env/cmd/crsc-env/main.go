// The command crsc-env is what testing/env/env and testing/env/image run.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/crsc-io/crsc/testing/env/cmd/crsc-env/command"
)

func main() {
	err := command.Root().Execute()
	var status command.ExitStatus
	switch {
	case errors.As(err, &status):
		os.Exit(int(status))
	case err != nil:
		fmt.Fprintln(os.Stderr, "env:", err)
		os.Exit(1)
	}
}
