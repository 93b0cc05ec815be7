// Package kills kills a container's init again and again, at random moments, and
// counts what was recovered: what make egress and make datagrams have in common.
//
//	count, err := kills.Play(ctx, kills.Plan{Env: e, ID: "teller", Kills: 100, Gap: time.Second, …})
//
// # Invariants
//
//   - Only a process that is in the container's cgroup is killed.
//   - A run ends at the first crash that is not recovered: [Count] says so, and is
//     no error, since what clients saw is of interest then.
package kills
