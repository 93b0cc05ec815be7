package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// run executes one command line and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	err := root.ExecuteContext(ctx)
	if err != nil {
		// Nothing is left to do when even stderr is gone.
		_, _ = fmt.Fprintln(stderr, "crsc:", err)
	}
	return exitCode(err)
}

// newRoot returns the command tree. A new subcommand is a file of its own with
// a constructor, added here.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "crsc",
		Short:         "Look at containers that survive crashes, and at what is kept for them",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          help,
	}
	root.AddCommand(newPS(), newMetrics(), newCheckpoint(), newCheckpoints(), newPin(true), newPin(false), newJournal(), newImage())
	return root
}

// help is what a command with subcommands does by itself. Without it cobra
// takes an unknown subcommand for a request for help, and exits with 0.
func help(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// exactly is cobra.ExactArgs that says what the arguments are.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.ExactArgs(n)(cmd, args); err != nil {
			return fmt.Errorf("%w: %s", err, cmd.UseLine())
		}
		return nil
	}
}
