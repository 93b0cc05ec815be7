package criutest

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// listenConsole makes the socket on which runc passes the master of a
// container's terminal, and sends the master, or nil, to received.
func listenConsole(t testing.TB, dir string, received chan<- *os.File) string {
	t.Helper()
	path := filepath.Join(dir, "console")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.AcceptUnix()
		if err != nil {
			received <- nil
			return
		}
		defer conn.Close()
		received <- receiveFile(conn)
	}()
	return path
}

func receiveFile(conn *net.UnixConn) *os.File {
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return nil
	}
	return os.NewFile(uintptr(fds[0]), "master")
}
