package tcprepair

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Seqs are sequence numbers in both directions.
type Seqs struct {
	// In belongs to the input stream (leg to application), Out to the output.
	In, Out uint32
}

// BaseSeqs returns the sequence numbers of offset 0 of both streams of a
// connected leg, to which written bytes have been written so far (queued by the
// kernel or sent). It enters repair mode for a moment, which the connection
// does not notice.
//
// For a leg made by Dial offset 0 is the beginning of the connection; for one
// made by Restore it is where the leg took up, and equals Mirror's Snd and Rcv.
func BaseSeqs(fd int, written uint64) (Seqs, error) {
	if err := setInt(fd, unix.TCP_REPAIR, repairOn); err != nil {
		return Seqs{}, fmt.Errorf("base sequence numbers: %w", err)
	}
	s, err := baseSeqs(fd, written)
	if err = errors.Join(err, leaveRepair(fd)); err != nil {
		return Seqs{}, fmt.Errorf("base sequence numbers: %w", err)
	}
	return s, nil
}

func baseSeqs(fd int, written uint64) (Seqs, error) {
	sent, err := getSeq(fd, queueSend)
	if err != nil {
		return Seqs{}, err
	}
	// rcv_nxt may advance between the two calls: read until it stands still.
	for range 100 {
		before, err := getSeq(fd, queueRecv)
		if err != nil {
			return Seqs{}, err
		}
		received, err := bytesReceived(fd)
		if err != nil {
			return Seqs{}, err
		}
		after := before
		if received > 0 {
			if after, err = getSeq(fd, queueRecv); err != nil {
				return Seqs{}, err
			}
		}
		if before == after {
			return Seqs{In: sent - uint32(written), Out: after - uint32(received)}, nil
		}
	}
	return Seqs{}, errors.New("the receive sequence does not stand still")
}

// bytesReceived counts what the socket has received, its end included. Before
// the first byte rcv_nxt does not move.
func bytesReceived(fd int) (uint64, error) {
	var info unix.TCPInfo
	size := uint32(unsafe.Sizeof(info))
	if err := getOption(fd, unix.SOL_TCP, unix.TCP_INFO, unsafe.Pointer(&info), &size); err != nil {
		return 0, fmt.Errorf("TCP_INFO: %w", err)
	}
	return info.Bytes_received, nil
}
