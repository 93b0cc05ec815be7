package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
)

// newPin returns the command that keeps an image, or, with pinned false, the one
// that no longer does.
func newPin(pinned bool) *cobra.Command {
	var t target
	use, short := "pin", "Keep the image of a checkpoint, whatever retention says"
	if !pinned {
		use, short = "unpin", "Let retention remove the image of a checkpoint again"
	}
	cmd := &cobra.Command{
		Use:   use + " CONTAINER CHECKPOINT",
		Short: short,
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			sequence, err := strconv.ParseUint(args[1], 10, 64)
			if err != nil {
				return fmt.Errorf("%q is not the number of a checkpoint; crsc checkpoints %s lists them", args[1], args[0])
			}
			_, client, err := t.find(args[0])
			if err != nil {
				return err
			}
			return client.Pin(cmd.Context(), sequence, pinned)
		},
	}
	t.addFlags(cmd)
	return cmd
}
