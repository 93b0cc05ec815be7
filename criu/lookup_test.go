package criu_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

// collected matches what CRIU logs of a connected TCP socket that it was told of by
// the kernel: its own port.
var collected = regexp.MustCompile(`Collected: ino .* port +(\d+) state TCP_ESTABLISHED `)

// The clients' ends of the connections are in the namespace that CRIU runs in, and
// no task has them: who walks the table of connections meets them.
func TestConnectionsAreLookedUp(t *testing.T) {
	box := start(t, criutest.NetNS(t), criutest.RedisArgs)
	for _, addr := range []string{"127.0.0.1:6379", "[::1]:6379"} {
		for range 2 {
			criutest.DialRedis(t, box.pins.NetNS(), addr)
		}
	}
	box.dump(func(o *criu.DumpOptions) { o.LogLevel = 4 })
	log, err := os.ReadFile(filepath.Join(box.images, "dump.log"))
	if err != nil {
		t.Fatal(err)
	}
	found := collected.FindAllStringSubmatch(string(log), -1)
	if len(found) != 4 {
		t.Errorf("CRIU was told of %d connections, there are 4 of the container", len(found))
	}
	for _, m := range found {
		if m[1] != "6379" {
			t.Errorf("CRIU was told of a socket on port %s, which is none of the container's", m[1])
		}
	}
	if t.Failed() {
		t.Logf("%s", log)
	}
}

// A dump that logs all asks the kernel itself what the others have read ahead on
// a second thread.
func TestReadAheadIsTheSame(t *testing.T) {
	box := start(t, criutest.NetNS(t), criutest.RedisArgs)
	for range 10 {
		for _, addr := range []string{"127.0.0.1:6379", "[::1]:6379"} {
			criutest.DialRedis(t, box.pins.NetNS(), addr)
		}
	}
	files := func(level int) []byte {
		box.dump(func(o *criu.DumpOptions) { o.LogLevel, o.Reserve, o.Urgent = level, true, true })
		b, err := os.ReadFile(filepath.Join(box.images, "files.img"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	asked := files(4)
	for range 5 {
		if read := files(1); !bytes.Equal(asked, read) {
			t.Fatalf("files.img differs:\n%x\n%x", asked, read)
		}
	}
}
