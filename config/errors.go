package config

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrUnknownKey is returned for a crsc.io/* annotation, or a key of the
	// node file, that this version does not know.
	ErrUnknownKey = errors.New("unknown key")
	// ErrMalformed is returned when a value does not have the accepted form.
	ErrMalformed = errors.New("malformed value")
	// ErrForbidden is returned when the node does not let containers set a key.
	ErrForbidden = errors.New("not allowed on this node")
	// ErrOutOfBounds is returned when a value is outside the node's bounds.
	ErrOutOfBounds = errors.New("outside the bounds of this node")
	// ErrConflict is returned when two values contradict each other.
	ErrConflict = errors.New("contradicting values")
)

// KeyError says what is wrong with one key. It wraps one of the sentinels of
// this package.
type KeyError struct {
	Key   string // with its crsc.io/ prefix, or the key of the node file
	Value string
	Form  string // the accepted form, in words; may be empty
	Hint  string // what to do about it; may be empty
	Err   error
}

// Error names the key, the value and the accepted form in one line.
func (e *KeyError) Error() string {
	var b strings.Builder
	b.WriteString(e.Key)
	if e.Value != "" || !errors.Is(e.Err, ErrUnknownKey) { // of those the node file's parser tells no value
		fmt.Fprintf(&b, "=%q", shorten(e.Value))
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Form != "" {
		fmt.Fprintf(&b, ": accepted is %s", e.Form)
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, "; %s", e.Hint)
	}
	return b.String()
}

// Unwrap returns the sentinel.
func (e *KeyError) Unwrap() error { return e.Err }

// shorten keeps hostile or accidental megabytes out of logs and events.
func shorten(v string) string {
	const most = 120
	if len(v) <= most {
		return v
	}
	return v[:most] + "…"
}
