// The command crsc-lint checks the tree in the working directory, or in its
// argument, and fails if there is something to say.
package main

import (
	"fmt"
	"os"

	"github.com/crsc-io/crsc/testing/lint"
)

func main() {
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	problems, err := lint.Check(root)
	for _, p := range problems {
		fmt.Println(p)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "lint:", err)
	}
	if err != nil || len(problems) > 0 {
		os.Exit(1)
	}
}
