// Package torture runs the public test tools of the field against servers, once
// directly and once through the proxy, and compares what they say. Most are run
// a third time while the server is killed again and again. make torture is its
// command.
//
// What is compared is everything that does not depend on speed: which commands
// succeeded, how many requests and bytes, which errors.
package torture
