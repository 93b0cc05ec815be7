package config

import "regexp"

// KeyRestoreFrom is the annotation of a container that begins where an image
// says.
const KeyRestoreFrom = Prefix + "restore-from"

// reference is a full image name with a tag or a digest (github.com/distribution
// /reference, without its shortcuts).
const reference = `^[a-z0-9][a-z0-9.-]*(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})$`

func restoreKeys() []key {
	return []key{{
		name: KeyRestoreFrom, form: `the full name of a checkpoint image with tag or digest, such as "crsc.local/crsc/default/web:latest", or "off"`, def: "off",
		doc: "Begin with the memory, the processes and the files of a checkpoint image that is in containerd's content store, instead of running the program. The spec stays the container's own. With the tag `latest` an image that is damaged or not signed is passed over in favour of the one before it; any other is taken or the creation fails. Established connections are closed. It needs `crsc.io/checkpoint-restore=true`.",
		parse: orOff(func(c *Config, v string) error {
			if len(v) > 512 || !regexp.MustCompile(reference).MatchString(v) {
				return errForm
			}
			c.RestoreFrom = v
			return nil
		}, func(c *Config) { c.RestoreFrom = "" }),
	}}
}
