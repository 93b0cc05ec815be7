package config

// The annotations that decide what becomes of checkpoints outside of the shim.
const (
	KeyPublish        = Prefix + "publish"
	KeyPublishKeep    = Prefix + "publish-keep"
	KeyPublishHourly  = Prefix + "publish-keep-hourly"
	KeyPublishDaily   = Prefix + "publish-keep-daily"
	KeyPublishMaxSize = Prefix + "publish-max-size"
)

// maxPublishKeep bounds how many images a container may have.
const maxPublishKeep = 10_000

// minPublishSize is the least that images may be limited to.
const minPublishSize = 1 << 20

func publishKeys() []key {
	return []key{{
		name: KeyPublish, form: `"true" or "false"`, def: "false",
		doc: "Publish checkpoints as OCI images `crsc.local/crsc/NAMESPACE/ID:SEQUENCE` and `:latest` in containerd's content store, in the background. They hold the memory and the environment of the container.",
		parse: func(c *Config, v string) (err error) {
			c.Publish, err = parseBool(v)
			return err
		},
	}, {
		name: KeyPublishKeep, form: `a whole number of at least 1 such as "10"`, def: "10",
		doc: "How many of the container's newest images are kept. Pinned ones (`crsc pin`, or the label `crsc.io/pin=true`) stay and do not count.",
		parse: func(c *Config, v string) (err error) {
			c.PublishKeep, err = countOf(v, 1)
			return err
		},
		rank: func(c *Config) float64 { return float64(c.PublishKeep) },
	}, {
		name: KeyPublishHourly, form: `a whole number such as "24"`, def: "0",
		doc: "Of how many hours that have images the newest is kept as well.",
		parse: func(c *Config, v string) (err error) {
			c.PublishHourly, err = countOf(v, 0)
			return err
		},
		rank: func(c *Config) float64 { return float64(c.PublishHourly) },
	}, {
		name: KeyPublishDaily, form: `a whole number such as "7"`, def: "0",
		doc: "Of how many days (UTC) that have images the newest is kept as well.",
		parse: func(c *Config, v string) (err error) {
			c.PublishDaily, err = countOf(v, 0)
			return err
		},
		rank: func(c *Config) float64 { return float64(c.PublishDaily) },
	}, {
		name: KeyPublishMaxSize, form: `a number of bytes of at least 1Mi with an optional suffix Ki, Mi, Gi or Ti such as "2Gi", or "off"`, def: "off",
		doc: "Bytes, compressed, that the kept images of the container may take together. The oldest are removed; the newest is kept in any case.",
		parse: orOff(func(c *Config, v string) (err error) {
			c.PublishMaxSize, err = sizeAtLeast(v, minPublishSize)
			return err
		}, func(c *Config) { c.PublishMaxSize = Off }),
		rank: func(c *Config) float64 { return offIsMost(float64(c.PublishMaxSize)) },
	}}
}

// countOf reads a number of images.
func countOf(v string, least int64) (int, error) {
	n, err := parseDecimal(v)
	if err == nil && (n < least || n > maxPublishKeep) {
		err = errForm
	}
	return int(n), err
}
