// Package cluster runs a Kubernetes of one node: etcd, kube-apiserver,
// kube-controller-manager, kube-scheduler, kube-proxy, containerd and kubelet,
// as themselves, in a sandbox (package sandbox).
//
// Requests are authorized by RBAC; only the components themselves, and the
// tests, are in the group system:masters. Pods are on a bridge of their own and
// reach each other, the node and Services, and nothing else.
package cluster
