package imagebench

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/crsc-io/crsc/testing/bench"
)

// valueSize in bytes: of four pages, with what Redis adds.
const valueSize = 16000

// data is random data in a Redis.
type data struct {
	conn *bench.Redis
	keys int
	rnd  *rand.ChaCha8
}

func newData(rig *bench.Rig, server *bench.Server, megabytes int) (*data, error) {
	conn, err := rig.DialRedis(server.Addr)
	if err != nil {
		return nil, err
	}
	d := &data{conn: conn, keys: megabytes << 20 / valueSize, rnd: rand.NewChaCha8([32]byte{1})}
	for i := range d.keys {
		if err := d.set(i); err != nil {
			return nil, fmt.Errorf("fill: %w", err)
		}
	}
	return d, nil
}

func (d *data) set(key int) error {
	value := make([]byte, valueSize)
	_, _ = d.rnd.Read(value) // never fails
	_, err := d.conn.Do("SET", "key:"+strconv.Itoa(key), string(value))
	return err
}

// overwrite replaces the values of as many keys as make so many megabytes.
func (d *data) overwrite(megabytes int) error {
	for range megabytes << 20 / valueSize {
		if err := d.set(int(d.rnd.Uint64() % uint64(d.keys))); err != nil {
			return err
		}
	}
	return nil
}

func (d *data) close() { _ = d.conn.Close() }

// cpu returns the processor time of all that has to do with images: the shim
// with the children that it has reaped, and the daemon.
func cpu(rig *bench.Rig, server *bench.Server) (shim, daemon time.Duration, err error) {
	s, err := server.Status()
	if err != nil {
		return 0, 0, err
	}
	b, err := os.ReadFile(filepath.Join(rig.Env.Dir, "containerd.pid"))
	if err != nil {
		return 0, 0, err
	}
	var process struct{ Pid int }
	if err := json.Unmarshal(b, &process); err != nil {
		return 0, 0, err
	}
	shim, err = processorTime(s.ShimPid)
	if err != nil {
		return 0, 0, err
	}
	daemon, err = processorTime(process.Pid)
	return shim, daemon, err
}

func processorTime(pid int) (total time.Duration, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// Behind the name: field 3 of proc(5) comes first, 14 to 17 are ticks of
	// 10 ms in user and in kernel mode, of the process and of its children.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	for _, f := range fields[11:15] {
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		total += time.Duration(n) * 10 * time.Millisecond
	}
	return total, nil
}
