// Package critest compares the shim with containerd's own by the conformance
// suite of Kubernetes' Container Runtime Interface, critest of cri-tools: the
// same containerd runs all specs with the handler runc and with the handler
// crsc, and the same specs must pass.
//
//	make critest            # out/critest.json; six minutes
//	make critest ARGS='-focus Streaming -handlers runc,crsc'
//
// A second suite is containerd's own integration tests of a runtime
// (integration/client of its source tree), which also restart and kill the
// daemon, share process namespaces, map users, and checkpoint:
//
//	make client-tests       # out/client-tests.json
//
// A third is its integration tests of the CRI plugin (integration of its source
// tree): statistics, events, logs, terminals, updates of resources, user
// namespaces, volumes, and a daemon that is started again under running pods:
//
//	make cri-tests          # out/cri-tests.json
//
// # Invariants
//
//   - Everything runs isolated (package isolate): containerd with CRI, CNI's
//     bridge, and a registry that serves the images the suite names. Nothing is
//     downloaded; all images are one file system of BusyBox and testing/critest/program
//     with different configurations.
//   - A difference is a spec whose result is not that of the stock shim,
//     whichever is better; specs that fail with both are named in the report
//     and are no difference. With the handler "crsc-protected" the node's file
//     asks for protection of every container.
//
// # Known failures
//
// "public image with digest" wants an image of the suite's own registry by its
// digest, and "MaskedPaths" a shell that has no ls of its own. Both fail with
// either shim.
//
// Of the CRI plugin's tests AdditionalGids wants the groups of a certain image,
// Issue10598 nginx itself, and ContainerIOLeakAfterStartFailed finds one pipe of
// either shim.
package critest
