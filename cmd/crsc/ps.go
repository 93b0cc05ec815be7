package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/control"
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
// node's state directory, see control.List.
func containers(ctx context.Context, flag string) ([]*status.Status, error) {
	root, err := stateDir(flag)
	if err != nil {
		return nil, err
	}
	return control.List(ctx, root)
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
			list, err := containers(cmd.Context(), dir)
			switch {
			case asJSON && list != nil:
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				err = errors.Join(err, enc.Encode(list))
			case len(list) > 0:
				printStatus(cmd, list)
			case err == nil:
				_, err = fmt.Fprintln(cmd.ErrOrStderr(), "no container has crsc.io/checkpoint-restore")
			}
			return err
		},
	}
	addStateDir(cmd, &dir)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print everything that is known, as JSON")
	return cmd
}

// newTable returns a table that prints to the command's output.
func newTable(cmd *cobra.Command) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(cmd.OutOrStdout())
	t.SetStyle(table.StyleLight)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	return t
}

func printStatus(cmd *cobra.Command, list []*status.Status) {
	t := newTable(cmd)
	t.AppendHeader(table.Row{"namespace", "id", "phase", "protection", "checkpoint", "frozen", "recoveries", "connections", "past the proxy", "recovery now", "not replayable", "memory", "image"})
	for _, s := range list {
		t.AppendRow(table.Row{
			s.Namespace, s.ID, s.Phase, protection(s), age(s), frozen(s), s.RecoveryCount, s.Connections,
			past(s.Unproxied), estimate(s.RecoveryTarget), unreplayable(s), pressure(s.Pressure), image(s.Images),
		})
	}
	t.SuppressEmptyColumns()
	t.Render()
}

func protection(s *status.Status) string {
	if s.Protected && s.JournalFault != "" {
		return "protected; clients wait: " + s.JournalFault
	}
	if s.Protected {
		return "protected"
	}
	if s.Reason != "" {
		return s.Reason
	}
	return "not protected yet"
}

// age is that of the last checkpoint, and why there is no later one.
func age(s *status.Status) string {
	out := "none"
	if last := s.Checkpoints.Last; last != nil {
		out = fmt.Sprintf("#%d, %s ago", last.Sequence, time.Since(last.Time).Round(100*time.Millisecond))
	}
	if why, _, _ := strings.Cut(s.Checkpoints.LastError, "\n"); why != "" {
		out += "; they fail: " + why
	}
	return out
}

func frozen(s *status.Status) string {
	if s.Checkpoints.Last == nil {
		return ""
	}
	return milliseconds(s.Checkpoints.Last.FrozenMS)
}

// past counts the connections that a recovery resets, and names the first.
func past(u *status.Unproxied) string {
	if u == nil || len(u.Connections) == 0 {
		return ""
	}
	out := strings.Replace(u.Connections[0], " ", " to ", 1)
	if u.Count > 1 {
		out += fmt.Sprintf(" and %d more", u.Count-1)
	}
	return out
}

// estimate is how long a recovery would take, against what is wanted, and how
// often that was kept.
func estimate(r *status.RecoveryTarget) string {
	if r == nil {
		return ""
	}
	out := fmt.Sprintf("%.0f of %.0f ms", r.EstimateMS, r.TargetMS)
	if r.Recoveries > 0 {
		out += fmt.Sprintf(", kept %d/%d", r.Within, r.Recoveries)
	}
	if r.Reason != "" {
		out += " (" + r.Reason + ")"
	}
	return out
}

// unreplayable is the oldest input that a crash now would lose.
func unreplayable(s *status.Status) string {
	if s.UnreplayableSince == nil {
		return ""
	}
	return fmt.Sprintf("%s, %s ago", s.Unreplayable, time.Since(*s.UnreplayableSince).Round(100*time.Millisecond))
}

func pressure(p *status.Pressure) string {
	if p == nil {
		return ""
	}
	out := ""
	if p.MemoryPercent != nil {
		out = fmt.Sprintf("%.0f%%", *p.MemoryPercent)
	}
	if p.StalledSource != "" {
		out += fmt.Sprintf(" stalled %.0f%%", p.StalledPercent)
	}
	if p.Reason != "" {
		out += " (" + p.Reason + ")"
	}
	return strings.TrimSpace(out)
}

// image is the last one, or why there is no newer one.
func image(i *status.Images) string {
	switch {
	case i == nil:
		return ""
	case i.LastError != "":
		return "failed: " + i.LastError
	case i.Last == nil:
		return "none"
	}
	return fmt.Sprintf("#%d, %s", i.Last.Sequence, size(i.Last.Bytes))
}

func milliseconds(ms float64) string { return fmt.Sprintf("%.1f ms", ms) }

// size writes a number of bytes for people.
func size(n int64) string {
	switch {
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 10<<20:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
