package netns

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// loopbackPatience is how long a connection over the loopback interface may take.
// Somebody's rules may drop its packets, and TCP alone would try for two minutes.
const loopbackPatience = 2 * time.Second

// ConnectLoopback connects a blocking socket. It is for trials.
//
// Errors: unix.ETIMEDOUT after two seconds, and those of connect(2).
func ConnectLoopback(fd int, to unix.Sockaddr) error {
	limit := unix.NsecToTimeval(loopbackPatience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return fmt.Errorf("limit the time of a connection: %w", err)
	}
	err := unix.Connect(fd, to)
	if errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("connect over the loopback interface in %v: %w", loopbackPatience, unix.ETIMEDOUT)
	}
	return err
}
