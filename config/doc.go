// Package config turns what operators write into one validated value.
//
// Two sources exist: the node file (TOML, see [Load]), which belongs to the
// administrator of the node, and the crsc.io/* annotations of a container,
// which belong to whoever runs it. [Node.Container] joins them into a [Config].
//
// Invariants:
//   - Every crsc.io/* key that is accepted has an effect. Unknown keys and
//     malformed values are errors that name the key, the value and the accepted
//     form, whether or not protection is switched on.
//   - An annotation is checked against the node's allow and forbid lists and
//     its bounds; the node's own defaults are checked when the file is loaded.
//   - A [Config] is never changed after it was returned. Its slices must not be
//     written to.
package config
