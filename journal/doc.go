// Package journal records what crossed the boundary of a container, so that it
// can be replayed into a restored container: an append-only log of records in
// preallocated, recycled segment files. FORMAT.md describes the bytes.
//
// One goroutine, the writer, appends and commits:
//
//	j, err := journal.Open(journal.Options{Dir: dir})
//	j.AppendInput(conn, offset, outPos, payload) // into the batch: no I/O, no allocation
//	err = j.Commit()                             // the batch is durable now
//
// or, where a disk must not be waited for, CommitBehind, which lets another
// goroutine write and sync while the next batch is being filled.
//
// Readers, and TrimBefore, may run in other goroutines:
//
//	r, err := j.NewReader(from)
//	for err = r.Next(&rec); err == nil; err = r.Next(&rec) { … }
//
// Invariants:
//
//   - What Commit returned nil for is read back after the crash that the
//     durability class covers, entire and in order.
//   - After any crash the journal reads as a prefix of what was appended.
//     What a crash cut off is reported (Recovered), never passed over.
//   - A record that does not belong at its position is never returned: the
//     checksum covers the position and the life of the segment file.
//   - A torn tail, a corruption and an unknown version are told apart; the
//     last two stop Open, which then has changed nothing.
//   - After a failed write nothing more is acknowledged until Heal.
//   - Positions grow for ever, over trimming and reopening; they name a byte
//     of the log, not of a file.
package journal
