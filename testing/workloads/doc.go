// Package workloads runs real services in protected containers, kills them
// under load, and lets their own clients judge: nothing lost, nothing doubled,
// memory and files agree.
//
//	report, err := workloads.Run(ctx, workloads.Options{Instance: "workloads", Kills: 100})
//
// make workloads runs them all; the report goes to out/workloads.json.
package workloads
