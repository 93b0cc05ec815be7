package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"syscall"
	"time"

	runc "github.com/containerd/go-runc"
	"github.com/containerd/log"
)

// loggerGrace is the time that a logging binary has to flush after SIGTERM:
// ten seconds for its own work, and some to spare.
const loggerGrace = 12 * time.Second

// logger is a logging binary (binary://…). It reads the streams from its
// descriptors 3 and 4 and closes 5 when it is ready.
type logger struct {
	child    *Child
	out, err *os.File // writing ends
	readEnds [2]*os.File
}

var _ runc.IO = (*logger)(nil)

// startLogger starts the logging binary that uri names and waits, as long as
// ctx lets it, until it is ready. The reading ends of its pipes stay open here
// until CloseAfterStart.
func startLogger(ctx context.Context, uri *url.URL, id, namespace string) (_ *logger, retErr error) {
	var files []*os.File
	defer func() {
		if retErr != nil {
			for _, f := range files {
				_ = closeFile(f)
			}
		}
	}()
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("logging binary: %w", err)
		}
		files = append(files, r, w)
	}
	outR, outW, errR, errW, readyR, readyW := files[0], files[1], files[2], files[3], files[4], files[5]
	cmd := loggerCommand(uri, id, namespace)
	cmd.ExtraFiles = []*os.File{outR, errR, readyW}
	child, err := StartCommand(cmd)
	if err != nil {
		return nil, fmt.Errorf("start logging binary: %w", err)
	}
	_ = readyW.Close()
	stop := context.AfterFunc(ctx, func() { _ = readyR.SetReadDeadline(time.Now()) })
	_, err = readyR.Read(make([]byte, 1))
	stop()
	_ = readyR.Close()
	if err != nil && !errors.Is(err, io.EOF) {
		_ = child.Signal(syscall.SIGKILL)
		return nil, fmt.Errorf("wait for logging binary: %w", err)
	}
	return &logger{child: child, out: outW, err: errW, readEnds: [2]*os.File{outR, errR}}, nil
}

// loggerCommand turns the query into arguments, keys and values in turn.
func loggerCommand(uri *url.URL, id, namespace string) *exec.Cmd {
	var args []string
	for k, vs := range uri.Query() {
		args = append(args, k)
		if len(vs) > 0 {
			args = append(args, vs[0])
		}
	}
	cmd := exec.Command(uri.Path, args...)
	cmd.Env = []string{"CONTAINER_ID=" + id, "CONTAINER_NAMESPACE=" + namespace}
	return cmd
}

// Set gives the logger's pipes to the process itself.
func (l *logger) Set(cmd *exec.Cmd) { cmd.Stdout, cmd.Stderr = l.out, l.err }

// CloseAfterStart leaves the reading ends to the logger alone.
func (l *logger) CloseAfterStart() error {
	return errors.Join(closeFile(l.readEnds[0]), closeFile(l.readEnds[1]))
}

// Close ends the logger: it sees the end of its pipes and SIGTERM, and is
// killed when it has not ended in loggerGrace.
func (l *logger) Close() error {
	err := errors.Join(l.CloseAfterStart(), closeFile(l.out), closeFile(l.err))
	if kerr := l.child.Signal(syscall.SIGTERM); kerr != nil {
		return errors.Join(err, kerr)
	}
	ctx, cancel := context.WithTimeout(context.Background(), loggerGrace)
	defer cancel()
	if _, werr := l.child.Wait(ctx); werr != nil {
		log.L.WithField("pid", l.child.Pid()).Warn("logging binary does not end, killing it")
		err = errors.Join(err, l.child.Signal(syscall.SIGKILL))
	}
	return err
}

// Stdin, Stdout and Stderr are nil: nothing passes the shim.
func (l *logger) Stdin() io.WriteCloser { return nil }
func (l *logger) Stdout() io.ReadCloser { return nil }
func (l *logger) Stderr() io.ReadCloser { return nil }
