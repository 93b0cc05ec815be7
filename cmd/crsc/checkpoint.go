package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/crsc-io/crsc/control"
)

// newCheckpoint returns the command that makes a checkpoint now.
func newCheckpoint() *cobra.Command {
	var t target
	var image, asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "checkpoint CONTAINER",
		Short: "Make a checkpoint now, and wait for it",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.find(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			made, err := client.Checkpoint(ctx, image)
			if errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("not made within %v (--timeout), and given up; crsc ps tells how the container is", timeout)
			}
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(made)
			}
			return printMade(cmd.OutOrStdout(), made)
		},
	}
	t.addFlags(cmd)
	cmd.Flags().BoolVar(&image, "image", false, "wait also for its image, and print the name")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print everything that is known, as JSON")
	cmd.Flags().DurationVar(&timeout, "timeout", time.Minute, "give up after this time")
	return cmd
}

func printMade(w io.Writer, made *control.Made) error {
	c := made.Checkpoint
	_, err := fmt.Fprintf(w, "checkpoint %d: frozen %.1f ms, %.1f ms in all, %d connections\n", c.Sequence, c.FrozenMS, c.TotalMS, c.Connections)
	if err == nil && made.Image != nil {
		_, err = fmt.Fprintf(w, "%s@%s\n", made.Image.Name, made.Image.Digest)
	}
	return err
}
