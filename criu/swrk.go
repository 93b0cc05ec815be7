package criu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// StartFunc starts cmd on the calling thread, which is inside the container's
// namespaces, and returns how to wait for it. The status is the one of waitpid:
// an exit code, or 128 plus the signal.
type StartFunc func(cmd *exec.Cmd) (wait func() (int, error), err error)

// startChild is the StartFunc of a process that nobody else reaps children in.
func startChild(cmd *exec.Cmd) (func() (int, error), error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() (int, error) {
		st, err := cmd.Process.Wait()
		if err != nil {
			return -1, err
		}
		ws, _ := st.Sys().(interface {
			Signaled() bool
			Signal() unix.Signal
		})
		if ws != nil && ws.Signaled() {
			return 128 + int(ws.Signal()), nil
		}
		return st.ExitCode(), nil
	}, nil
}

// killGrace is how long a canceled CRIU may take to reach the next point where
// it asks us before it is killed. Killing it while it runs code inside a task is
// the one way a dump can hurt the container, so this is the last resort.
const killGrace = 5 * time.Second

// maxMessage bounds a message of CRIU's. Its answers are under a kilobyte.
const maxMessage = 64 << 10

// spawn says how a `criu swrk` child is started.
type spawn struct {
	path       string      // the CRIU binary
	namespaces []string    // namespaces it runs in, as paths
	owner      owner       // its real user and group
	kerndat    string      // what CRIU knows of the kernel; empty: it asks
	inside     *inside     // the user namespace it runs in, unless nil
	stdio      [3]*os.File // what the restored processes inherit; nil is /dev/null
	start      StartFunc
	keyring    bool // it gets a session keyring of its own
	// patience is how long it may say nothing before it is killed; 0: for ever
	patience time.Duration
}

// swrk is one `criu swrk` child: CRIU serving a single request over a socket.
type swrk struct {
	conn *net.UnixConn
	proc *os.Process
	// onDeath, if set, is called at once when CRIU is found to be dying in the
	// middle of its work, before it is waited for.
	onDeath func()
	// onAnswer, if set, is called as soon as CRIU's answer is there.
	onAnswer func()
	// patience is as in spawn; stuck: it came to an end.
	patience time.Duration
	stuck    atomic.Bool
	// exited is closed when the child has ended; status and waitErr are set.
	exited  chan struct{}
	status  int
	waitErr error
}

func (s spawn) run() (*swrk, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start criu: socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "criu"), os.NewFile(uintptr(fds[1]), "criu")
	defer theirs.Close()
	fc, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, fmt.Errorf("start criu: %w", err)
	}
	conn, ok := fc.(*net.UnixConn)
	if !ok {
		fc.Close()
		return nil, errors.New("start criu: not a unix socket")
	}
	config, err := configFile()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start criu: %w", err)
	}
	defer config.Close()
	cmd := exec.Command(s.path, "swrk", "3")
	cmd.ExtraFiles = []*os.File{theirs, config}
	// Symbols are looked up when CRIU starts, not while tasks are frozen.
	cmd.Env = append(os.Environ(), "CRIU_CONFIG_FILE=/proc/self/fd/4", "LD_BIND_NOW=1")
	// A group of its own: CRIU forks children that stop themselves (its tests
	// of ptrace); killed alone it leaves them behind, holding its socket.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A *os.File(nil) in an interface is not a nil interface.
	if s.stdio[0] != nil {
		cmd.Stdin = s.stdio[0]
	}
	if s.stdio[1] != nil {
		cmd.Stdout = s.stdio[1]
	}
	if s.stdio[2] != nil {
		cmd.Stderr = s.stdio[2]
	}
	if s.inside != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, s.inside.images)
		opened, err := s.inside.wrap(cmd)
		defer closeAll(opened)
		if err != nil {
			conn.Close()
			return nil, fmt.Errorf("start criu: %w", err)
		}
	}
	w := &swrk{conn: conn, patience: s.patience, exited: make(chan struct{})}
	var wait func() (int, error)
	err = onThread(func() error {
		if err := enter(s.namespaces); err != nil {
			return err
		}
		if s.kerndat != "" {
			if err := haveAnswers(s.kerndat); err != nil {
				return err
			}
		}
		if s.inside != nil {
			if err := s.inside.furnish(); err != nil {
				return err
			}
		}
		if err := s.owner.become(); err != nil {
			return err
		}
		if err := s.leaveKeyring(); err != nil {
			return err
		}
		var err error
		wait, err = s.start(cmd)
		return err
	})
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("start criu: %w", err)
	}
	w.proc = cmd.Process
	go w.await(wait)
	return w, nil
}

// leaveKeyring gives the calling thread, if it is asked for, an empty session
// keyring, as runc does for a container: CRIU restores none, and ours may have
// the keys of whoever started containerd.
func (s spawn) leaveKeyring() error {
	if !s.keyring {
		return nil
	}
	_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
	if errors.Is(err, unix.ENOSYS) {
		return nil // a kernel without keys
	}
	return os.NewSyscallError("keyctl", err)
}

// lastWords is how long after CRIU's end its answer may still be read.
const lastWords = 200 * time.Millisecond

// await sees the child's end. A child of CRIU's that outlives it may hold the
// socket open, so the end of the conversation is not always seen there.
func (w *swrk) await(wait func() (int, error)) {
	w.status, w.waitErr = wait()
	_ = w.conn.SetReadDeadline(time.Now().Add(lastWords)) // it may be closed
	close(w.exited)
}

// kill ends the child and the children that it has not handed over.
func (w *swrk) kill() {
	// The group may have no members any more, and the child have ended.
	_ = unix.Kill(-w.proc.Pid, unix.SIGKILL)
	_ = w.proc.Kill()
}

func (w *swrk) wait() (int, error) {
	<-w.exited
	return w.status, w.waitErr
}

// notifyFunc is called for each point at which CRIU asks. An error makes CRIU
// undo what it did. files were sent along and belong to the callee.
type notifyFunc func(script string, pid int, files []*os.File) error

// call sends one request and serves CRIU's questions until its answer is there
// and the child has ended. The first error is returned: of the context, of
// notify, or of CRIU.
func (w *swrk) call(ctx context.Context, req *rpc.CriuReq, notify notifyFunc) (*rpc.CriuResp, error) {
	answered := make(chan struct{})
	guarded := make(chan struct{})
	go func() {
		defer close(guarded)
		w.killLate(ctx, answered)
	}()
	resp, err := w.converse(ctx, req, notify)
	if errors.Is(err, errEOF) {
		w.kill()
		if w.onDeath != nil {
			w.onDeath()
		}
	}
	w.conn.Close()
	status, werr := w.wait()
	close(answered)
	<-guarded
	if errors.Is(err, errEOF) && w.stuck.Load() {
		err = fmt.Errorf("%w: nothing came from it for %v, and it was killed: %w", ErrStuck, w.patience, err)
	} else if errors.Is(err, errEOF) && werr == nil {
		err = fmt.Errorf("%w (status %d)", err, status)
	}
	// The answer is CRIU's last act (cr-service.c, dump_using_req): how it ends
	// after that, killed perhaps, changes nothing.
	return resp, err
}

// errEOF is CRIU's end without an answer.
var errEOF = errors.New("criu ended without an answer")

// abandon ends a child that has not been sent a request.
func (w *swrk) abandon() error {
	w.conn.Close()
	_, err := w.wait()
	return err
}

// killLate kills the child if it has not ended killGrace after ctx did.
func (w *swrk) killLate(ctx context.Context, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	grace := time.NewTimer(killGrace)
	defer grace.Stop()
	select {
	case <-ended:
	case <-grace.C:
		w.kill()
	}
}

func (w *swrk) converse(ctx context.Context, req *rpc.CriuReq, notify notifyFunc) (*rpc.CriuResp, error) {
	var refused error
	for {
		if err := w.send(req); err != nil {
			return nil, errors.Join(refused, err)
		}
		resp, files, err := w.hear()
		if err != nil {
			return nil, errors.Join(refused, err)
		}
		if resp.GetType() != rpc.CriuReqType_NOTIFY {
			if w.onAnswer != nil {
				w.onAnswer()
			}
			closeAll(files)
			if refused != nil {
				return resp, refused
			}
			if !resp.GetSuccess() {
				return resp, failure(resp)
			}
			return resp, nil
		}
		err = context.Cause(ctx)
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrCanceled, err)
			closeAll(files)
		} else {
			err = notify(resp.GetNotify().GetScript(), int(resp.GetNotify().GetPid()), files)
		}
		if refused == nil {
			refused = err
		}
		req = &rpc.CriuReq{Type: rpc.CriuReqType_NOTIFY.Enum(), NotifySuccess: proto.Bool(err == nil)}
	}
}

func failure(resp *rpc.CriuResp) error {
	if n := resp.GetCrErrno(); n != 0 {
		return fmt.Errorf("failed (%w)", unix.Errno(n))
	}
	return errors.New("failed")
}

func (w *swrk) send(req *rpc.CriuReq) error {
	b, err := proto.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if _, err := w.conn.Write(b); err != nil {
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
			return errEOF
		}
		return fmt.Errorf("send to criu: %w", err)
	}
	return nil
}

// hear is receive from a child that is killed when patience ends.
func (w *swrk) hear() (*rpc.CriuResp, []*os.File, error) {
	if w.patience > 0 {
		end := time.AfterFunc(w.patience, func() {
			w.stuck.Store(true)
			w.kill()
		})
		defer end.Stop()
	}
	return w.receive()
}

func (w *swrk) receive() (*rpc.CriuResp, []*os.File, error) {
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*16))
	n, oobn, flags, _, err := w.conn.ReadMsgUnix(buf, oob)
	if err != nil || n == 0 {
		return nil, nil, errEOF
	}
	files := parseFiles(oob[:oobn])
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		closeAll(files)
		return nil, nil, fmt.Errorf("message of criu is longer than %d bytes", maxMessage)
	}
	resp := new(rpc.CriuResp)
	if err := proto.Unmarshal(buf[:n], resp); err != nil {
		closeAll(files)
		return nil, nil, fmt.Errorf("decode message of criu: %w", err)
	}
	return resp, files, nil
}

func parseFiles(oob []byte) []*os.File {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "criu-passed"))
		}
	}
	return files
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
