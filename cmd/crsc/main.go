// Command crsc is the operator's view of containers that crsc protects.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
