package main

import (
	"cmp"
	"encoding/json"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/crsc-io/crsc/control"
	"github.com/crsc-io/crsc/oci"
	"github.com/crsc-io/crsc/status"
)

// held is everything that there is of a container's checkpoints.
type held struct {
	// Kept are on disk, for a recovery in place.
	Kept   []status.Checkpoint `json:"kept"`
	Images []control.Image     `json:"images"`
}

// newCheckpoints returns the command that lists a container's checkpoints.
func newCheckpoints() *cobra.Command {
	var t target
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "checkpoints CONTAINER",
		Short: "List a container's checkpoints: on disk, and published as images",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.find(args[0])
			if err != nil {
				return err
			}
			s, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			h := held{Kept: s.Checkpoints.Kept}
			if h.Images, err = client.Images(cmd.Context()); err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(h)
			}
			h.print(cmd)
			return nil
		},
	}
	t.addFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print everything that is known, as JSON")
	return cmd
}

func (h *held) print(cmd *cobra.Command) {
	t := newTable(cmd)
	t.AppendHeader(table.Row{"checkpoint", "time", "cause or image", "frozen", "size", "own size", "pinned"})
	for _, c := range h.Kept {
		t.AppendRow(table.Row{c.Sequence, c.Time.Local().Format(time.DateTime), c.Cause, milliseconds(c.FrozenMS)})
	}
	for _, i := range h.Images {
		pinned := ""
		if i.Pinned {
			pinned = "pinned"
		}
		t.AppendRow(table.Row{cmp.Or(i.Tag, oci.Tag(i.Sequence)), i.Time.Local().Format(time.DateTime), i.Name, "", size(i.Bytes), size(i.OwnBytes), pinned})
	}
	t.Render()
}
