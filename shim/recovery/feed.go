package recovery

import (
	"time"

	"github.com/crsc-io/crsc/status"
)

// scheduleFrom tells the scheduler of a complete checkpoint.
func (g *guard) scheduleFrom(cp *checkpoint, info *status.Checkpoint) {
	g.sched.completed(made{
		seq: cp.seq, begun: info.Time, at: cp.moment, mark: cp.mark, firstNew: cp.cut.Table.NextID,
		size: size{pages: info.Pages, connections: info.Connections},
	}, time.Now(), ms(info.FrozenMS+info.HeldMS))
}

// moment is what the proxy has counted so far.
func (g *guard) moment() moment {
	st := g.proxy.Stats()
	return moment{journaled: amount{records: st.InRecords, bytes: st.InBytes}, accepted: st.Accepted}
}

// noteInput takes input that can't be replayed, and shows it in the status.
func (g *guard) noteInput(in input) {
	if !g.isReady() {
		return
	}
	g.sched.note(in)
	g.writeStatus()
}

// unrecorded takes input that the proxy could not journal.
func (g *guard) unrecorded(what string) {
	g.sched.note(input{at: time.Now(), what: what, counts: true})
}

// isReady reports that protection was in force when the container started, and
// that it has not ended.
func (g *guard) isReady() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ready
}

// wantCheckpoint asks for a checkpoint soon, whatever it costs: without it a
// crash is not hidden, or not as it should be. It does not block.
func (g *guard) wantCheckpoint(why string) {
	g.sched.note(input{at: time.Now(), what: why, counts: true, urgent: true, replayable: why != orderLost})
}

// orderLost: what was consumed meanwhile can be replayed, but perhaps in
// another order.
const orderLost = "order of input lost"
