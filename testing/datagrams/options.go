package datagrams

import "errors"

// ErrFailed is returned when a client was not answered, or wrongly, or a
// crash was not recovered. The report says which.
var ErrFailed = errors.New("the run failed")
