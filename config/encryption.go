package config

// KeyJournalEncryption is the annotation that encrypts the journal.
const KeyJournalEncryption = Prefix + "journal-encryption"

func encryptionKeys() []key {
	return []key{{
		name: KeyJournalEncryption, form: `"true" or "false"`, def: "false",
		doc: "Encrypt what the journal writes to disk (AES-256-GCM), with a key of the container's own that is in memory only and destroyed when the container is deleted, its shim ends or the host does; what is left of the journal can't be read then. A record takes 16 bytes more. It covers the journal only: checkpoints on disk hold the container's memory as it is, and with it recent requests (images are encrypted by `encrypt_for` of the node file). Where the key can't be kept the container is not protected.",
		parse: func(c *Config, v string) (err error) {
			c.JournalEncryption, err = parseBool(v)
			return err
		},
	}}
}
