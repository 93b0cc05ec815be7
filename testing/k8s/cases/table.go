package cases

// table lists the cases in the order in which they run.
func table() []testCase {
	return []testCase{
		{"install", install},
		{"manifests", manifests},
		{"least-rights", leastRights},
		{"walk-through", walkThrough},
		{"patch-and-policy", patch},
		{"deployment", deployment},
		{"probes-network", networkProbes},
		{"probes-exec", execProbes},
		{"operator-tools", operatorTools},
		{"top", top},
		{"lifecycle-hooks", lifecycleHooks},
		{"log-rotation", logRotation},
		{"debug-in-pid-namespace", insidePID},
		{"fresh-by-default", freshByDefault},
		{"across-pods", acrossPods},
		{"pod-address", podAddress},
		{"drain", drain},
		{"sidecars", sidecars},
		{"two-protected", twoProtected},
		{"restricted", restricted},
		{"host-network", hostNetwork},
		{"host-pid", hostPID},
		{"user-namespace", userNamespace},
		{"malformed-annotation", refused},
		{"tenants", tenants},
		{"over-budget", overBudget},
		{"containerd-killed", killedContainerd},
		{"kubelet-killed", killedKubelet},
		{"upgrade", upgrade},
		{"uninstall", uninstall},
		{"chart", installChart},
	}
}
