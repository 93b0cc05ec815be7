package config

// Unreplayable are kinds of input that no journal has, and after which a
// checkpoint is made soon. Its zero value has none of them.
type Unreplayable struct {
	// Exec: a process was started in the container, or one has ended.
	Exec bool
	// Signal: the orchestrator sent a signal that does not ask for the end.
	Signal bool
	// Stdin: something was written to standard input.
	Stdin bool
	// Connection: a connection has lasted for a second that the last checkpoint
	// does not have. What TLS agrees on at its beginning can't be replayed.
	Connection bool
}

const allUnreplayable = "exec,signal,stdin,connection"

func parseUnreplayable(s string) (Unreplayable, error) {
	var u Unreplayable
	if s == "off" {
		return u, nil
	}
	items := splitList(s)
	if len(items) == 0 {
		return u, errForm
	}
	for _, item := range items {
		field := map[string]*bool{"exec": &u.Exec, "signal": &u.Signal, "stdin": &u.Stdin, "connection": &u.Connection}[item]
		if field == nil || *field {
			return Unreplayable{}, errForm
		}
		*field = true
	}
	return u, nil
}
