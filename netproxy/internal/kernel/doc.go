// Package kernel tells where the running kernel keeps what BPF programs read,
// from its BTF.
package kernel
