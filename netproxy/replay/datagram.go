package replay

import "github.com/crsc-io/crsc/journal"

// datagram takes the records that belong to no connection.
func (b *builder) datagram(rec *journal.Record) {
	switch rec.Type {
	case journal.TypeDatagram:
		if rec.Position < b.mark && !b.waiting[rec.Position] {
			return // taken before the cut
		}
		d := &Datagram{
			Position: rec.Position, Source: rec.Source, Dest: rec.Dest,
			Payload: append([]byte(nil), rec.Payload...), Sent: rec.Sent - min(rec.Sent, b.sent),
		}
		b.datagrams[rec.Position] = d
		b.arrived = append(b.arrived, d)
		b.plan.Bytes += int64(len(d.Payload))
	case journal.TypeDatagramTaken:
		if d := b.datagrams[rec.Of]; d != nil && !d.taken {
			d.taken = true
			b.step(Step{Kind: Receive, Datagram: d})
		}
	case journal.TypeDatagramSent:
		if rec.Position >= b.mark {
			b.plan.Replies = append(b.plan.Replies, Reply{Flow: rec.Flow, Hash: rec.Hash})
		}
	}
}
