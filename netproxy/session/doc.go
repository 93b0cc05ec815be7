// Package session tells which connections to a server an application could use in
// place of each other.
//
// A request of HTTP/1 stands alone. Of other protocols the answer depends on what was
// said on the connection before: who logged in, which statements are prepared, whether
// a transaction is open. A [Tracker] reads what both ends say, and condenses that to
// a [Class]: sessions to one server of which it is equal answer a request alike, and
// whoever holds one may be given another.
//
//	t := session.Sniff(id, first)    // nil: the protocol is not known
//	t.Wrote(offset, data)            // what the application wrote, and what
//	t.Heard(data)                    // the server answered
//	class, ok := t.At(offset)        // of what is written from there on
//
// The protocols are Redis's (RESP) and PostgreSQL's (3.0).
//
// # Invariants
//
//   - What is not understood makes a session unlike every other, for good.
//   - Inside a transaction the class holds all that was asked in it. At its end it is
//     again what it was before.
//   - A tracker's memory is bounded. What it has forgotten has no class.
//   - Functions and triggers of a database's own that alter their session are not
//     seen, as they are not by a pooler between both (PgBouncer's transaction mode).
package session
