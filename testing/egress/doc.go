// Package egress shows that an application's requests to other servers are made
// exactly once, whatever crashes in between.
//
// nginx runs in a container and hands each request of its clients on to a bank,
// an unprotected server which counts what it is charged. nginx keeps a few
// connections to the bank open and replaces each after some requests. It is
// killed again and again under load. In the end the bank must have been charged
// as often as clients were served, for each request once. The same is done with a
// server whose threads share a pool of connections to the bank, which then speaks
// HTTP, or is a Redis or a PostgreSQL.
package egress
