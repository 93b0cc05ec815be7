package main

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/spf13/cobra"

	"github.com/crsc-io/crsc/status"
)

// newMetrics returns the command that prints the node's containers as metrics.
// Its output is meant for the node exporter's textfile collector.
func newMetrics() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "metrics",
		Short: "Print metrics of all containers in Prometheus' text format",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := containers(dir)
			if err != nil {
				return err
			}
			reg := prometheus.NewRegistry()
			if err := reg.Register(collector(list)); err != nil {
				return err
			}
			families, err := reg.Gather()
			if err != nil {
				return err
			}
			for _, f := range families {
				if _, err := expfmt.MetricFamilyToText(cmd.OutOrStdout(), f); err != nil {
					return err
				}
			}
			return nil
		},
	}
	addStateDir(cmd, &dir)
	return cmd
}

// collector makes metrics of status files.
type collector []*status.Status

// Describe implements prometheus.Collector: the metrics are found by collecting.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	labels := []string{"namespace", "id"}
	gauge := func(name, help string, v float64, values ...string) {
		l := labels
		if len(values) > 2 {
			l = append(append([]string(nil), labels...), "reason")
		}
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("crsc_"+name, help, l, nil), prometheus.GaugeValue, v, values...)
	}
	counter := func(name, help string, v float64, values ...string) {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc("crsc_"+name, help, labels, nil), prometheus.CounterValue, v, values...)
	}
	for _, s := range c {
		who := []string{s.Namespace, s.ID}
		protected := 0.0
		if s.Protected {
			protected = 1
		}
		gauge("protected", "Whether a crash now would be hidden; the reason says why not.", protected, s.Namespace, s.ID, s.Reason)
		gauge("connections", "Connections that pass the proxy.", float64(s.Connections), who...)
		counter("checkpoints_total", "Complete checkpoints.", float64(s.Checkpoints.Count), who...)
		counter("checkpoint_failures_total", "Checkpoints that failed; the container ran on.", float64(s.Checkpoints.Failed), who...)
		counter("recoveries_total", "Crashes that were hidden.", float64(s.RecoveryCount), who...)
		counter("recovery_failures_total", "Crashes that could not be hidden.", float64(s.RecoveryFailed), who...)
		if last := s.Checkpoints.Last; last != nil {
			gauge("checkpoint_timestamp_seconds", "When the last complete checkpoint began.", float64(last.Time.UnixMilli())/1000, who...)
			gauge("checkpoint_frozen_seconds", "How long the last checkpoint stopped the container.", last.FrozenMS/1000, who...)
		}
		if n := len(s.Recoveries); n > 0 {
			gauge("recovery_seconds", "How long the last recovery took, from the crash on.", s.Recoveries[n-1].TotalMS/1000, who...)
		}
	}
}
