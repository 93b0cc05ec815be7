package config

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Prefix is that of every annotation that is ours.
const Prefix = "crsc.io/"

// The annotations of a container. docs/CONFIGURATION.md explains them.
const (
	KeyEnabled        = Prefix + "checkpoint-restore"
	KeyInterval       = Prefix + "checkpoint-interval"
	KeyJournalSize    = Prefix + "checkpoint-journal-size"
	KeyJournalRecords = Prefix + "checkpoint-journal-records"
	KeyJournalMaxSize = Prefix + "journal-max-size"
	KeyDurability     = Prefix + "durability"
	KeyOrder          = Prefix + "order"
	KeyBudget         = Prefix + "recovery-budget"
	KeyRecoverOOM     = Prefix + "recover-oom"
)

// minInterval keeps a container from being frozen most of the time.
const minInterval = 100 * time.Millisecond

// minJournal is the least that the journal may be limited to: one segment of
// it has to hold the largest record several times over.
const minJournal = 64 << 10

// key describes one annotation: how it is read, and how it is documented.
type key struct {
	name  string
	form  string // accepted form, in words
	def   string // built-in default
	doc   string // for docs/CONFIGURATION.md
	parse func(c *Config, value string) error
	// rank makes values comparable with the node's bounds; nil: no bounds. A
	// value that is "off" or "unlimited" ranks above all others, unless it
	// stands for nothing at all.
	rank func(c *Config) float64
}

// keys returns the table of annotations, in the order of the documentation.
func keys() []key {
	return slices.Concat(
		triggerKeys(),
		scheduleKeys(),
		behaviourKeys(),
		faultKeys(),
		encryptionKeys(),
		networkKeys(), proxyKeys(),
		volumeKeys(),
		publishKeys(),
		restoreKeys(),
		podKeys(),
		memoryKeys(),
	)
}

func triggerKeys() []key {
	return []key{{
		name: KeyEnabled, form: `"true" or "false"`, def: "false",
		doc: "Protect the container: checkpoint it, journal its TCP traffic, and recover it in place after a crash.",
		parse: func(c *Config, v string) (err error) {
			c.Enabled, err = parseBool(v)
			return err
		},
	}, {
		name: KeyInterval, form: `a duration of at least 100ms such as "2s" or "1m30s", or "off"`, def: "10s",
		doc: "Longest time between two checkpoints.",
		parse: orOff(func(c *Config, v string) (err error) {
			c.Interval, err = parseDuration(v, minInterval)
			return err
		}, func(c *Config) { c.Interval = Off }),
		rank: func(c *Config) float64 { return offIsMost(c.Interval.Seconds()) },
	}, {
		name: KeyJournalSize, form: `a number of bytes of at least 64Ki with an optional suffix Ki, Mi, Gi or Ti such as "4Mi", or "off"`, def: "4Mi",
		doc: "Journalled bytes since the last checkpoint that trigger the next one. It bounds how long a replay takes.",
		parse: orOff(func(c *Config, v string) (err error) {
			c.JournalSize, err = sizeAtLeast(v, minJournal)
			return err
		}, func(c *Config) { c.JournalSize = Off }),
		rank: func(c *Config) float64 { return offIsMost(float64(c.JournalSize)) },
	}, {
		name: KeyJournalRecords, form: `a whole number of at least 1 such as "4000", or "off"`, def: "4000",
		doc: "Input records (requests, roughly) since the last checkpoint that trigger the next one. It bounds how long a replay takes.",
		parse: orOff(func(c *Config, v string) (err error) {
			if c.JournalRecords, err = parseDecimal(v); err == nil && c.JournalRecords < 1 {
				err = errForm
			}
			return err
		}, func(c *Config) { c.JournalRecords = Off }),
		rank: func(c *Config) float64 { return offIsMost(float64(c.JournalRecords)) },
	}, {
		name: KeyJournalMaxSize, form: `a number of bytes of at least 64Ki with an optional suffix Ki, Mi, Gi or Ti such as "256Mi"`, def: "256Mi",
		doc: "Bytes that the journal may hold on disk. A checkpoint is made when three quarters of it are reached; `on-journal-fault` says what happens if the journal reaches it all the same.",
		parse: func(c *Config, v string) (err error) {
			c.JournalMaxSize, err = sizeAtLeast(v, minJournal)
			return err
		},
		rank: func(c *Config) float64 { return float64(c.JournalMaxSize) },
	}}
}

func behaviourKeys() []key {
	return []key{{
		name: KeyDurability, form: `"memory", "page-cache" or "disk"`, def: "page-cache",
		doc: "What committed input survives before output is released: a crash of the container (`memory`), also of the shim (`page-cache`), also of the host (`disk`).",
		parse: func(c *Config, v string) (err error) {
			c.Durability, err = oneOf(v, DurabilityMemory, DurabilityPageCache, DurabilityDisk)
			return err
		},
		rank: func(c *Config) float64 { return float64(c.Durability) },
	}, {
		name: KeyOrder, form: `"auto", "tracepoint" or "serial"`, def: "auto",
		doc: "How the order is learned in which the application consumes its input: observed in the kernel (`tracepoint`), or forced by handing over one input at a time (`serial`, slower, works everywhere). `auto` takes the first where the kernel offers it.",
		parse: func(c *Config, v string) (err error) {
			c.Order, err = oneOf(v, OrderAuto, OrderTracepoint, OrderSerial)
			return err
		},
	}, {
		name: KeyBudget, form: `N/DURATION (at most N recoveries within a DURATION of at least 1s) such as "10/10m", or "unlimited"`, def: "10/10m",
		doc: "How often the container is recovered in place before its exit is reported to the orchestrator as usual. `0/1m` never recovers.",
		parse: func(c *Config, v string) (err error) {
			c.Budget, err = parseBudget(v)
			return err
		},
		rank: func(c *Config) float64 {
			if c.Budget.Unlimited {
				return math.Inf(1)
			}
			return float64(c.Budget.Recoveries) / c.Budget.Window.Hours()
		},
	}, {
		name: KeyRecoverOOM, form: `"true" or "false"`, def: "false",
		doc: "Recover also a container that the kernel killed for lack of memory.",
		parse: func(c *Config, v string) (err error) {
			c.RecoverOOM, err = parseBool(v)
			return err
		},
	}}
}

// orOff adds the value "off" to what parse accepts.
func orOff(parse func(*Config, string) error, off func(*Config)) func(*Config, string) error {
	return func(c *Config, v string) error {
		if v == "off" {
			off(c)
			return nil
		}
		return parse(c, v)
	}
}

func offIsMost(v float64) float64 {
	if v == Off {
		return math.Inf(1)
	}
	return v
}

func sizeAtLeast(v string, least int64) (int64, error) {
	n, err := ParseSize(v)
	if err == nil && n < least {
		err = errForm
	}
	return n, err
}

func oneOf[T fmt.Stringer](v string, values ...T) (T, error) {
	for _, x := range values {
		if x.String() == v {
			return x, nil
		}
	}
	var zero T
	return zero, errForm
}

// set reads value into c.
func (k key) set(c *Config, value string) error {
	err := errForm
	if len(value) <= maxValue {
		err = k.parse(c, value)
	}
	if err != nil {
		return &KeyError{Key: k.name, Value: value, Form: k.form, Err: ErrMalformed}
	}
	return nil
}

// find returns the key called name, with or without the prefix.
func find(table []key, name string) (key, error) {
	full := name
	if !strings.HasPrefix(name, Prefix) {
		full = Prefix + name
	}
	for _, k := range table {
		if k.name == full {
			return k, nil
		}
	}
	return key{}, &KeyError{Key: full, Err: ErrUnknownKey, Hint: "did you mean " + nearest(table, full) + "?"}
}

// nearest returns the name with the smallest edit distance to name.
func nearest(table []key, name string) string {
	best, least := "", math.MaxInt
	for _, k := range table {
		if d := distance(shorten(name), k.name); d < least {
			best, least = k.name, d
		}
	}
	return best
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := cmp.Compare(a[i], b[j])
			next := min(row[j+1]+1, row[j]+1, diagonal+cost*cost)
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
