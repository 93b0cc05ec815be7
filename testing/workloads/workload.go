package workloads

import (
	"context"

	"github.com/crsc-io/crsc/testing/env"
)

// workload is a service and the clients that judge it.
type workload struct {
	name  string
	image string
	args  []string
	// program is a package of ours, or script a text, that is mounted into the
	// container as /app; volume adds one that is snapshotted.
	program, script string
	volume          bool
	port            uint16
	start           func(ctx context.Context, s *site) (clients, error)
}

// clients drive a service. They go on through crashes.
type clients interface {
	// Check asks the service whether all is right; the load goes on meanwhile.
	Check(ctx context.Context) error
	// Stop ends the load and compares what clients know with what the service
	// does. Requests are those that were answered, errors those that were not,
	// or wrongly.
	Stop(ctx context.Context) (requests, errors int, err error)
}

// site is where a workload runs.
type site struct {
	env *env.Env
	pod *env.Netns
	w   *workload
	id  string
}

// table lists the workloads.
func table() []workload {
	return []workload{{
		name: "ledger", image: "busybox", program: "./testing/workloads/ledger", volume: true,
		args: []string{"/app"}, port: 7000, start: startLedger,
	}, {
		name: "memcached", image: "memcached", port: 11211, start: startMemcached,
	}, {
		name: "sqlite", image: "python", script: sqliteService, volume: true,
		args: []string{"python3.11", "/app", "/volume/db"}, port: 8000, start: startSQLite,
	}, {
		name: "postgresql", image: "postgresql", port: 5432, start: startPostgres,
	}}
}
