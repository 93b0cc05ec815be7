// Command crsc-node puts crsc onto a Kubernetes node, takes it away again, and
// tells Kubernetes what happens there.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := newRoot().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "crsc-node:", err)
		os.Exit(1)
	}
}
