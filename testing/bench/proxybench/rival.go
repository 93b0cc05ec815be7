package proxybench

import "github.com/crsc-io/crsc/testing/bench"

// rivalTable compares our proxy with that of another build; nil: there is none.
type rivalTable struct {
	table       *bench.Table
	out         *bench.Results
	ours, rival *target
}

func newRivalTable(out *bench.Results, title string, ours, rival *target) *rivalTable {
	if rival == nil {
		return nil
	}
	t := out.Table("Ours against the rival: "+title, "load", "throughput", "p50", "p99", "processor time")
	return &rivalTable{table: t, out: out, ours: ours, rival: rival}
}

// row adds a load; metric is the prefix of its figures.
func (t *rivalTable) row(title, metric string, of map[*target]*series) {
	if t == nil {
		return
	}
	o, r := of[t.ours], of[t.rival]
	t.table.Row(title, spread(o.rps.Over(r.rps)), spread(o.p50.Over(r.p50)), spread(o.p99.Over(r.p99)), spread(o.cpu.Over(r.cpu)))
	addRatio(t.out, metric+"_rps_vs_rival", o.rps.Over(r.rps), ratioOfRates)
	addRatio(t.out, metric+"_p99_vs_rival", o.p99.Over(r.p99), ratioOfTimes)
	addRatio(t.out, metric+"_cpu_vs_rival", o.cpu.Over(r.cpu), "median of the rounds; less is better")
}
