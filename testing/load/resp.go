package load

import (
	"bufio"
	"errors"
	"fmt"
	"strconv"
)

// ErrProtocol is returned for a reply that is not what was asked for.
var ErrProtocol = errors.New("unexpected reply")

// readLine reads up to CRLF. The line is valid until the next read.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return nil, fmt.Errorf("%w: %q", ErrProtocol, line)
	}
	return line[:len(line)-2], nil
}

// readInteger reads the reply of INCR without allocating.
func readInteger(r *bufio.Reader) (int64, error) {
	line, err := readLine(r)
	if err != nil {
		return 0, err
	}
	if line[0] != ':' || len(line) < 2 || len(line) > 19 {
		return 0, fmt.Errorf("%w: %q", ErrProtocol, line)
	}
	var n int64
	for _, digit := range line[1:] {
		if digit < '0' || digit > '9' {
			return 0, fmt.Errorf("%w: %q", ErrProtocol, line)
		}
		n = n*10 + int64(digit-'0')
	}
	return n, nil
}

// readBulkInteger reads the reply of GET for a counter; an absent key is 0.
func readBulkInteger(r *bufio.Reader) (int64, error) {
	line, err := readLine(r)
	if err != nil {
		return 0, err
	}
	if string(line) == "$-1" {
		return 0, nil
	}
	if line[0] != '$' {
		return 0, fmt.Errorf("%w: %q", ErrProtocol, line)
	}
	value, err := readLine(r)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %q", ErrProtocol, value)
	}
	return n, nil
}
