package recovery

import (
	"fmt"
	"runtime"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/crsc-io/crsc/netproxy/sockdiag"
	"github.com/crsc-io/crsc/shim/lifecycle"
	"github.com/crsc-io/crsc/status"
)

// Topics of the events that a guard publishes through containerd. The payload
// is a google.protobuf.Struct.
const (
	TopicUnprotected      = "/crsc/unprotected"
	TopicCheckpointed     = "/crsc/checkpointed"
	TopicCheckpointFailed = "/crsc/checkpoint-failed"
	TopicRecovered        = "/crsc/recovered"
	TopicRecoveryFailed   = "/crsc/recovery-failed"
	TopicJournalStalled   = "/crsc/journal-stalled" // with an empty error: no more
	TopicPublished        = "/crsc/published"
	TopicPublishFailed    = "/crsc/publish-failed"
	TopicUnproxied        = "/crsc/unproxied" // once for a container
)

func (g *guard) publish(topic string, fields map[string]any) {
	fields["container_id"] = g.c.ID()
	ev, err := structpb.NewStruct(fields)
	if err != nil {
		g.log.WithError(err).Error("event")
		return
	}
	g.c.Publish(topic, ev)
}

// writeStatus replaces the status file.
func (g *guard) writeStatus() {
	// Asked for outside of mu: they wait for the proxy's kernel calls.
	var intercepted []string
	if g.proxy != nil {
		addrs, err := g.proxy.Intercepted()
		if err == nil {
			for _, a := range addrs {
				intercepted = append(intercepted, a.String())
			}
		}
	}
	g.writing.Lock()
	defer g.writing.Unlock()
	s := g.statusNow(intercepted)
	if err := s.Write(g.dir); err != nil {
		g.log.WithError(err).Warn("status file")
	}
}

// statusNow is the status with all figures.
func (g *guard) statusNow(intercepted []string) status.Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.proxy != nil {
		st := g.proxy.Stats()
		if g.cfg.JournalUDP {
			g.status.Datagrams = &status.Datagrams{Journaled: st.Datagrams, Dropped: st.Dropped, Repeated: st.Repeated}
		}
		g.status.Traffic = &status.Traffic{
			Accepted: st.Accepted, Opened: st.Opened, InBytes: st.InBytes, OutBytes: st.OutBytes,
			HeldBytes: st.Held, HeldMaxBytes: g.cfg.ProxyMemory,
			JournalBytes: st.Journal, JournalMaxBytes: g.cfg.JournalMaxSize,
		}
		g.status.Order, g.status.OrderReason, g.status.Connections = st.Order, st.OrderReason, st.Connections
	}
	g.status.Intercepted = intercepted
	if g.proxy != nil {
		g.sched.describe(&g.status)
	}
	g.status.Updated, g.status.Goroutines = time.Now(), runtime.NumGoroutine()
	return g.status.Clone()
}

func (g *guard) phase(p string) {
	g.mu.Lock()
	g.status.Phase = p
	g.mu.Unlock()
	g.writeStatus()
}

func (g *guard) setUnprotected(err error) {
	g.mu.Lock()
	g.status.Protected, g.status.Reason = false, err.Error()
	g.mu.Unlock()
	g.log.Warn(err)
	g.publish(TopicUnprotected, map[string]any{"reason": err.Error()})
	if mkErr := mkdirPrivate(g.dir); mkErr != nil {
		g.log.WithError(mkErr).Warn("status file")
		return
	}
	g.writeStatus()
}

func (g *guard) unprotectedNow() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.status.Reason != ""
}

func (g *guard) noteCheckpoint(info *status.Checkpoint, past []sockdiag.Tuple) {
	memory := g.memoryUse()
	g.mu.Lock()
	g.status.Unproxied = unproxied(past)
	g.status.Checkpoints.Memory = memory
	g.status.Checkpoints.Count++
	g.status.Checkpoints.Last = info
	g.status.Checkpoints.Kept = g.store.kept()
	g.status.Checkpoints.LastError, g.status.Checkpoints.RetryAt = "", nil
	g.mu.Unlock()
	g.writeStatus()
	g.log.WithFields(map[string]any{"checkpoint": info.Sequence, "cause": info.Cause, "frozen_ms": info.FrozenMS, "total_ms": info.TotalMS}).Debug("checkpoint")
	if len(past) > 0 {
		g.unproxied.Do(func() { g.noteUnproxied(unproxied(past)) })
	}
}

// unproxied is what the status says of connections past the proxy; nil: there are none.
func unproxied(past []sockdiag.Tuple) *status.Unproxied {
	if len(past) == 0 {
		return nil
	}
	u := &status.Unproxied{Count: len(past)}
	for _, t := range past[:min(len(past), status.UnproxiedListed)] {
		u.Connections = append(u.Connections, t.Local.String()+" "+t.Remote.String())
	}
	return u
}

func (g *guard) noteUnproxied(u *status.Unproxied) {
	g.log.WithField("connections", u.Connections).Warnf("%d connections do not go through the proxy: a recovery resets them", u.Count)
	g.publish(TopicUnproxied, map[string]any{"connections": float64(u.Count), "first": u.Connections[0]})
}

func (g *guard) checkpointFailed(err error, again time.Duration) {
	g.mu.Lock()
	g.status.Checkpoints.Failed++
	g.status.Checkpoints.LastError = err.Error()
	at := time.Now().Add(again)
	g.status.Checkpoints.RetryAt = &at
	g.mu.Unlock()
	g.log.WithError(err).Warnf("checkpoint failed; the container runs on, next attempt in %s", again)
	g.writeStatus()
	g.publish(TopicCheckpointFailed, map[string]any{"error": err.Error()})
}

func (g *guard) noteRecovery(st *status.Recovery) {
	g.mu.Lock()
	st.Time = time.Now()
	g.sched.recovered(st, st.Time)
	g.status.Phase, g.status.Pid = "running", g.c.Pid()
	g.status.RecoveryCount++
	g.status.Recoveries = append(g.status.Recoveries, *st)
	if n := len(g.status.Recoveries); n > status.KeptRecoveries {
		g.status.Recoveries = g.status.Recoveries[n-status.KeptRecoveries:]
	}
	g.mu.Unlock()
	g.writeStatus()
	g.log.WithFields(map[string]any{
		"cause": st.Cause, "checkpoint": st.Checkpoint, "total_ms": st.TotalMS, "restore_ms": st.RestoreMS,
		"replay_ms": st.ReplayMS, "records": st.Records, "attempts": st.Attempts,
	}).Info("recovered")
	// The tail that was just worked off would have to be again.
	g.wantCheckpoint("recovery")
	g.publish(TopicRecovered, map[string]any{
		"cause": st.Cause, "checkpoint": float64(st.Checkpoint), "total_ms": st.TotalMS,
		"restore_ms": st.RestoreMS, "replay_ms": st.ReplayMS, "reset_connections": float64(st.Reset),
	})
}

func (g *guard) noteFailure(e lifecycle.Exit, err error) {
	g.mu.Lock()
	g.status.RecoveryFailed++
	g.status.Reason = fmt.Sprintf("recovery failed (%s): %v", cause(e), err)
	g.mu.Unlock()
	g.log.WithError(err).Error("the crash can't be hidden; the exit is reported")
	g.publish(TopicRecoveryFailed, map[string]any{"error": err.Error()})
}
