// Package nstest makes network namespaces for tests: an application's and a
// client's, joined by a veth pair, with IPv4 and IPv6 addresses. They have no
// name in the file system and vanish with the descriptors that hold them.
package nstest
