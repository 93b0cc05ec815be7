package main

import (
	"time"

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
			list, unread := containers(cmd.Context(), dir)
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
			return unread
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
	for _, s := range c {
		m := metrics{out, []string{s.Namespace, s.ID}}
		m.basic(s)
		if t := s.Traffic; t != nil {
			m.traffic(t, s.JournalFault != "")
		}
		if r := s.RecoveryTarget; r != nil {
			m.target(r)
		}
		if p := s.Pressure; p != nil {
			m.pressure(p)
		}
		if i := s.Images; i != nil {
			m.images(i)
		}
	}
}

// metrics are those of one container.
type metrics struct {
	out chan<- prometheus.Metric
	who []string // namespace and ID
}

func (m *metrics) send(t prometheus.ValueType, name, help string, v float64) {
	desc := prometheus.NewDesc("crsc_"+name, help, []string{"namespace", "id"}, nil)
	m.out <- prometheus.MustNewConstMetric(desc, t, v, m.who...)
}

func (m *metrics) gauge(name, help string, v float64) { m.send(prometheus.GaugeValue, name, help, v) }

func (m *metrics) counter(name, help string, v float64) {
	m.send(prometheus.CounterValue, name, help, v)
}

// protected has the reason as a label.
func (m *metrics) protected(s *status.Status) {
	v := 0.0
	if s.Protected {
		v = 1
	}
	desc := prometheus.NewDesc("crsc_protected", "Whether a crash now would be hidden; the reason says why not.", []string{"namespace", "id", "reason"}, nil)
	m.out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, s.Namespace, s.ID, s.Reason)
}

func (m *metrics) traffic(t *status.Traffic, fault bool) {
	m.counter("connections_accepted_total", "Connections that clients opened through the proxy.", float64(t.Accepted))
	m.counter("connections_opened_total", "Connections that the container opened through the proxy.", float64(t.Opened))
	m.counter("input_bytes_total", "Bytes that entered the container through the proxy.", float64(t.InBytes))
	m.counter("output_bytes_total", "Bytes that left the container through the proxy.", float64(t.OutBytes))
	m.gauge("proxy_memory_bytes", "Bytes that the proxy keeps for ends that are slow to take them.", float64(t.HeldBytes))
	m.gauge("proxy_memory_max_bytes", "Above it the senders wait.", float64(t.HeldMaxBytes))
	m.gauge("journal_bytes", "Bytes that the journal holds.", float64(t.JournalBytes))
	m.gauge("journal_max_bytes", "Bytes that it may hold.", float64(t.JournalMaxBytes))
	waits := 0.0
	if fault {
		waits = 1
	}
	m.gauge("journal_fault", "Whether clients wait because the journal can't be written.", waits)
}

func (m *metrics) basic(s *status.Status) {
	m.protected(s)
	m.gauge("connections", "Connections that pass the proxy.", float64(s.Connections))
	m.gauge("unproxied_connections", "Connections that do not go through the proxy, at the last checkpoint: a recovery resets them.", unproxied(s))
	m.counter("checkpoints_total", "Complete checkpoints.", float64(s.Checkpoints.Count))
	m.counter("checkpoint_failures_total", "Checkpoints that failed; the container ran on.", float64(s.Checkpoints.Failed))
	m.counter("recoveries_total", "Crashes that were hidden.", float64(s.RecoveryCount))
	m.counter("recovery_failures_total", "Crashes that could not be hidden.", float64(s.RecoveryFailed))
	if last := s.Checkpoints.Last; last != nil {
		m.gauge("checkpoint_timestamp_seconds", "When the last complete checkpoint began.", seconds(last.Time))
		m.gauge("checkpoint_frozen_seconds", "How long the last checkpoint stopped the container.", last.FrozenMS/1000)
	}
	if mem := s.Checkpoints.Memory; mem != nil {
		m.gauge("checkpoint_memory_bytes", "Memory that the container's checkpoints take.", float64(mem.Bytes))
		m.gauge("checkpoint_memory_node_max_bytes", "Memory that those of all containers may take; 0: any.", float64(mem.NodeMaxBytes))
	}
	if n := len(s.Recoveries); n > 0 {
		m.gauge("recovery_seconds", "How long the last recovery took, from the crash on.", s.Recoveries[n-1].TotalMS/1000)
	}
	if d := s.Datagrams; d != nil {
		m.counter("datagrams_total", "UDP datagrams that were journaled.", float64(d.Journaled))
		m.counter("datagrams_dropped_total", "UDP datagrams that were not given to the container for lack of room.", float64(d.Dropped))
	}
	if s.UnreplayableSince != nil {
		m.gauge("unreplayable_since_timestamp_seconds", "When the oldest input came that a crash now would lose.", seconds(*s.UnreplayableSince))
	}
}

func unproxied(s *status.Status) float64 {
	if s.Unproxied == nil {
		return 0
	}
	return float64(s.Unproxied.Count)
}

func (m *metrics) target(r *status.RecoveryTarget) {
	m.gauge("recovery_target_seconds", "How long a recovery may take.", r.TargetMS/1000)
	m.gauge("recovery_estimate_seconds", "How long a recovery would take now; 0: not known yet.", r.EstimateMS/1000)
	m.counter("recovery_target_recoveries_total", "Recoveries that were measured against the target.", float64(r.Recoveries))
	m.counter("recovery_target_kept_total", "Recoveries that took no longer than the target.", float64(r.Within))
}

func (m *metrics) pressure(p *status.Pressure) {
	if p.MemoryPercent != nil {
		m.gauge("memory_ratio", "Working set as a part of the memory limit.", *p.MemoryPercent/100)
	}
	m.gauge("memory_stalled_ratio", "Part of the last ten seconds in which a process waited for memory.", p.StalledPercent/100)
}

func (m *metrics) images(i *status.Images) {
	m.counter("images_total", "Checkpoints that were published as images.", float64(i.Count))
	m.counter("image_failures_total", "Publications that failed; the container is protected all the same.", float64(i.Failed))
	if i.Last != nil {
		m.gauge("image_timestamp_seconds", "When the last image was complete.", seconds(i.Last.Time))
		m.gauge("image_bytes", "What the last image added to the content store.", float64(i.Last.Bytes))
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
