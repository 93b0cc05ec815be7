package main

import (
	"fmt"
	"strconv"
	"strings"

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
		Long: short + ".\nCHECKPOINT is what crsc checkpoints shows in its first column: a number, and more behind it\n" +
			"if an earlier container of this name had made it.",
		Args: exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			number, _, _ := strings.Cut(args[1], "-")
			if _, err := strconv.ParseUint(number, 10, 64); err != nil {
				return fmt.Errorf("%q is not the number of a checkpoint; crsc checkpoints %s lists them", args[1], args[0])
			}
			client, err := t.find(args[0])
			if err != nil {
				return err
			}
			return client.Pin(cmd.Context(), args[1], pinned)
		},
	}
	t.addFlags(cmd)
	return cmd
}
