// Package replay turns a cut and the tail of a journal into the plan of a
// replay: which connections exist, what input each is fed, in which order, and
// what output is expected back.
//
// It does no I/O of its own but reading the journal and knows no sockets;
// package netproxy carries the plan out.
//
// # Order
//
// Input is fed in the order in which the application consumed it in the
// recorded run (the journal's Consumed records), one step at a time: the next
// step begins when the input of the previous one was taken again. That makes a
// single-threaded application process the same requests in the same order, and
// it implies causality between connections: whatever a client sent in reply to
// an output was consumed after the input that caused the output. Within a
// connection a step also waits for the output that the client had been sent
// when it sent the input (Step.Gate).
//
// Where sessions wait for each other's locks, that does not say who had a lock first.
// If a replay comes to a standstill, or out differently, its plan can be made to go by
// the order of answers as well (Plan.ByAnswers). Nor does it say who among those that
// waited had one of an application's few connections to a server first: what was not
// answered can be put off (Plan.PutOff).
package replay
