// Package cases is what crsc promises to users of Kubernetes, each promise
// asserted in a real cluster (package cluster) with kubectl and with clients of
// the pods. The cases run one after the other and leave the cluster as they
// found it; the first puts crsc onto the node, the last takes it away.
package cases
