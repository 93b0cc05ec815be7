package config

import "time"

// The annotations that say when a container is checkpointed, besides interval
// and amount.
const (
	KeyCron         = Prefix + "checkpoint-cron"
	KeyTarget       = Prefix + "recovery-target"
	KeyOnStop       = Prefix + "checkpoint-on-stop"
	KeyOnPressure   = Prefix + "checkpoint-on-pressure"
	KeyUnreplayable = Prefix + "checkpoint-unreplayable"
)

// minTarget is less than any restore takes.
const minTarget = 10 * time.Millisecond

const (
	// StopLimit is OnStop unless the container says otherwise.
	StopLimit = 2 * time.Second
	// minStopLimit is less than any checkpoint takes.
	minStopLimit = 10 * time.Millisecond
)

func scheduleKeys() []key {
	return []key{{
		name: KeyCron, form: `a cron expression of five fields such as "30 3 * * *", also after a time zone as in "CRON_TZ=Europe/Berlin 30 3 * * *", or "off"`, def: "off",
		doc: "Times at which a checkpoint is made, in the node's time zone unless it names one. What the clock skips when it is put forward is made up for at that moment; what it shows twice comes twice.",
		parse: orOff(func(c *Config, v string) (err error) {
			c.Cron, err = parseCron(v)
			return err
		}, func(c *Config) { c.Cron = Cron{} }),
	}, {
		name: KeyTarget, form: `a duration of at least 10ms such as "500ms", or "off"`, def: "off",
		doc: "How long a recovery may take. Checkpoints are made just often enough for that, by what restores and replays of this container have taken so far, but not so often that the container is stopped for more than a twentieth of the time. The status says what is estimated and how often it was kept. The other triggers stay in force: switch off those that the target is to replace.",
		parse: orOff(func(c *Config, v string) (err error) {
			c.RecoveryTarget, err = parseDuration(v, minTarget)
			return err
		}, func(c *Config) { c.RecoveryTarget = Off }),
		rank: func(c *Config) float64 { return offIsMost(c.RecoveryTarget.Seconds()) },
	}, {
		name: KeyOnStop, form: `"true" (which is "2s"), "false" or a duration of at least 10ms such as "500ms"`, def: "false",
		doc: "Make a checkpoint before a request to stop (SIGTERM, SIGINT or SIGQUIT from the orchestrator) is delivered. It delays the signal by at most so long; where the grace period is short, a fraction of that is a good choice. A checkpoint that takes longer is given up, and so is one that SIGKILL finds under way. An orchestrator that stops with SIGKILL at once gets none.",
		parse: func(c *Config, v string) (err error) {
			switch v {
			case "true":
				c.OnStop = StopLimit
			case "false":
				c.OnStop = 0
			default:
				c.OnStop, err = parseDuration(v, minStopLimit)
			}
			return err
		},
	}, {
		name: KeyOnPressure, form: `"true" (which is "` + usualPressure + `"), "false", or one or both of memory=PERCENT and psi=PERCENT`, def: "false",
		doc: "Make a checkpoint when the container's working set comes near its memory limit (`memory`, percent of the limit), or when its processes wait for memory (`psi`, percent of the last ten seconds), and again every ten seconds while that lasts. Where the kernel has no pressure information for the container's cgroup that of the whole host is taken, and the status says so.",
		parse: func(c *Config, v string) (err error) {
			c.Pressure, err = parsePressure(v)
			return err
		},
	}, {
		name: KeyUnreplayable, form: `a comma-separated list of "exec", "signal", "stdin" and "connection", or "off"`, def: allUnreplayable,
		doc: "Input that can't be replayed, after which a checkpoint is made soon: an exec has started or ended; the orchestrator sent a signal other than a request to stop; something was written to standard input; a new connection has lasted for a second (TLS can't be replayed from its beginning). Much of it is answered by one checkpoint: they come up to ten seconds apart.",
		parse: func(c *Config, v string) (err error) {
			c.Unreplayable, err = parseUnreplayable(v)
			return err
		},
	}}
}
