// Package sandbox runs a program as a machine of its own, as far as Linux lets
// it: with its own mount, network and process namespaces, directories in place
// of those that node software writes to, and a stand-in for the sysctls that a
// kubelet sets for the whole kernel.
//
// When the program ends, whatever way, the kernel ends everything that it
// started. What is left then (a directory and cgroups of a known name) [Run]
// removes, also that of a run which was killed.
package sandbox
