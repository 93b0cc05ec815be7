package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/status"
)

// addStateDir adds the flag that says where the containers' state is.
func addStateDir(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "state-dir", "", "state directory of the node (default: that of the node's configuration)")
}

// stateDir is the flag's value or the node's.
func stateDir(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	node, err := config.Load("")
	if err != nil {
		return "", err
	}
	return node.StateDir, nil
}

// containers returns the status of every container below the flag's or the
// node's state directory.
func containers(flag string) ([]*status.Status, error) {
	root, err := stateDir(flag)
	if err != nil {
		return nil, err
	}
	return status.List(root)
}

// newPS returns the command that lists the protected containers.
func newPS() *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List containers: protected or why not, last checkpoint, recoveries",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := containers(dir)
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(list)
			}
			printStatus(cmd, list)
			return nil
		},
	}
	addStateDir(cmd, &dir)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print everything that is known, as JSON")
	return cmd
}

func printStatus(cmd *cobra.Command, list []*status.Status) {
	t := table.NewWriter()
	t.SetOutputMirror(cmd.OutOrStdout())
	t.SetStyle(table.StyleLight)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	t.AppendHeader(table.Row{"namespace", "id", "phase", "protection", "checkpoint", "frozen", "recoveries", "connections"})
	for _, s := range list {
		t.AppendRow(table.Row{s.Namespace, s.ID, s.Phase, protection(s), age(s), frozen(s), s.RecoveryCount, s.Connections})
	}
	t.Render()
}

func protection(s *status.Status) string {
	if s.Protected {
		return "protected"
	}
	if s.Reason != "" {
		return s.Reason
	}
	return "not protected yet"
}

func age(s *status.Status) string {
	last := s.Checkpoints.Last
	if last == nil {
		return "none"
	}
	return fmt.Sprintf("#%d, %s ago", last.Sequence, time.Since(last.Time).Round(100*time.Millisecond))
}

func frozen(s *status.Status) string {
	if s.Checkpoints.Last == nil {
		return ""
	}
	return fmt.Sprintf("%.1f ms", s.Checkpoints.Last.FrozenMS)
}
