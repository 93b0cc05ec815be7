package config

// KeyJournalFault is the annotation that decides what becomes of clients when the
// journal can't be written.
const KeyJournalFault = Prefix + "on-journal-fault"

// JournalFault is what happens when the journal can't be written.
type JournalFault int

// The consequences of a fault of the journal.
const (
	FaultUnprotect JournalFault = iota // the container goes on without protection
	FaultHold                          // its clients wait
)

// String returns the form that the annotation has.
func (f JournalFault) String() string { return [...]string{"unprotect", "hold"}[f] }

func faultKeys() []key {
	return []key{{
		name: KeyJournalFault, form: `"unprotect" or "hold"`, def: "unprotect",
		doc: "What happens when the journal can't be written: the disk is full or failing, or the journal has reached `journal-max-size` although a checkpoint was made when it came near. `unprotect`: the container goes on without protection, says why, and is protected again with the first checkpoint that succeeds. `hold`: its clients wait for as long as it lasts, since no reply leaves that could not be repeated; nothing is lost if the container crashes afterwards. A journal whose directory has disappeared always ends the protection until the next checkpoint.",
		parse: func(c *Config, v string) (err error) {
			c.JournalFault, err = oneOf(v, FaultUnprotect, FaultHold)
			return err
		},
	}}
}
