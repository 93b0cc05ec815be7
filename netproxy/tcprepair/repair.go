package tcprepair

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Values of TCP_REPAIR and TCP_REPAIR_QUEUE (linux/tcp.h), since Linux 3.5;
// repairOffNoProbe since 4.19.
const (
	repairOn         = 1
	repairOffNoProbe = -1

	queueNone = 0
	queueRecv = 1
	queueSend = 2
)

// Codes of TCP_REPAIR_OPTIONS: the TCP option kinds.
const (
	tcpoptMSS       = 2
	tcpoptWindow    = 3
	tcpoptSACKPerm  = 4
	tcpoptTimestamp = 8
)

func setInt(fd, opt, v int) error {
	if err := setOption(fd, unix.SOL_TCP, opt, v); err != nil {
		return fmt.Errorf("setsockopt TCP %d: %w", opt, err)
	}
	return nil
}

func setSeq(fd, queue int, seq uint32) error {
	if err := setInt(fd, unix.TCP_REPAIR_QUEUE, queue); err != nil {
		return err
	}
	return setInt(fd, unix.TCP_QUEUE_SEQ, int(int32(seq)))
}

func getSeq(fd, queue int) (uint32, error) {
	if err := setInt(fd, unix.TCP_REPAIR_QUEUE, queue); err != nil {
		return 0, err
	}
	var seq uint32
	size := uint32(unsafe.Sizeof(seq))
	if err := getOption(fd, unix.SOL_TCP, unix.TCP_QUEUE_SEQ, unsafe.Pointer(&seq), &size); err != nil {
		return 0, fmt.Errorf("getsockopt TCP_QUEUE_SEQ: %w", err)
	}
	return seq, nil
}

// setWords sets an option whose value is an array of 32-bit words.
func setWords(fd, opt int, words ...uint32) error {
	b := make([]byte, 0, 4*len(words))
	for _, w := range words {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	if err := unix.SetsockoptString(fd, unix.SOL_TCP, opt, unsafe.String(&b[0], len(b))); err != nil {
		return fmt.Errorf("setsockopt TCP %d: %w", opt, err)
	}
	return nil
}

// leaveRepair ends repair mode without the window probe that TCP_REPAIR=0
// would send to a peer that may not exist yet. The kernel forgets SO_REUSEADDR
// on leaving; without it the leg's TIME_WAIT would block the port's next bind.
func leaveRepair(fd int) error {
	if err := setInt(fd, unix.TCP_REPAIR, repairOffNoProbe); err != nil {
		return err
	}
	return setOption(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
}
