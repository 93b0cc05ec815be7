package recovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/layer"
	"github.com/crsc-io/crsc/oci"
	"github.com/crsc-io/crsc/shim/lifecycle"
)

// imageCommand is the argument with which the shim's binary makes one image: it
// calls makeImage.
//
// Images are made in a process of their own. In the shim's, at whatever
// priority, they would share the runtime with the proxy: a thread of low priority
// that is not given a processor delays each garbage collection that has to stop
// it, and with that every client.
const imageCommand = "make-image"

// imageWork is all that the making of an image needs.
type imageWork struct {
	Dir        string // of the oci.Publisher
	Origin     oci.Origin
	Retention  oci.Retention
	SigningKey string
	EncryptFor []string
	Checkpoint oci.Checkpoint
	Layer      string // snapshot of the writable layer; empty: there is none
}

// imageResult is what a child answers.
type imageResult struct {
	Published oci.Published
	Error     string
}

// maxResult bounds what a child may print, in bytes.
const maxResult = 1 << 20

// endLimit is how long a child may take to end in an orderly way.
const endLimit = 5 * time.Second

// makeImageInChild makes an image in a child process, which ends with ctx and
// with the calling thread.
func makeImageInChild(ctx context.Context, w *imageWork) (oci.Published, error) {
	in, err := json.Marshal(w)
	if err != nil {
		return oci.Published{}, err
	}
	var out, log bytes.Buffer
	cmd := exec.Command("/proc/self/exe", imageCommand)
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOGC=50")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	child, err := lifecycle.StartCommand(cmd)
	if err != nil {
		return oci.Published{}, fmt.Errorf("make the image: %w", err)
	}
	done := make(chan struct{})
	defer close(done)
	stop := context.AfterFunc(ctx, func() {
		_ = child.Signal(syscall.SIGTERM) // at worst the next signal ends it
		select {
		case <-done:
		case <-time.After(endLimit):
			_ = child.Signal(syscall.SIGKILL)
		}
	})
	defer stop()
	status, err := child.Wait(context.WithoutCancel(ctx))
	if err := errors.Join(err, ctx.Err()); err != nil {
		return oci.Published{}, fmt.Errorf("make the image: %w", err)
	}
	var r imageResult
	if status != 0 || out.Len() > maxResult || json.Unmarshal(out.Bytes(), &r) != nil {
		return oci.Published{}, fmt.Errorf("make the image: the process ended with status %d: %.2000s", status, strings.TrimSpace(log.String()))
	}
	if r.Error != "" {
		err = errors.New(r.Error)
	}
	return r.Published, err
}

// makeImage is the child: it reads the work from in and answers on out.
//
// Errors: those of in and out. A failure of the work is answered.
func makeImage(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	go beModest()
	var w imageWork
	if err := json.NewDecoder(in).Decode(&w); err != nil {
		return fmt.Errorf("make the image: %w", err)
	}
	published, err := w.do(ctx)
	r := imageResult{Published: published}
	if err != nil {
		r.Error = err.Error()
	}
	return json.NewEncoder(out).Encode(r)
}

func (w *imageWork) do(ctx context.Context) (_ oci.Published, err error) {
	signer, err := oci.OpenSigner(w.SigningKey)
	if err != nil {
		return oci.Published{}, err
	}
	readers, err := oci.ParseRecipients(w.EncryptFor)
	if err != nil {
		return oci.Published{}, err
	}
	store, err := dialStore()
	if err != nil {
		return oci.Published{}, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	p, err := oci.NewPublisher(oci.Options{
		Store: store, Dir: w.Dir, Resume: true, Origin: w.Origin, Retention: w.Retention,
		Signer: signer, EncryptFor: readers,
	})
	if err != nil {
		return oci.Published{}, err
	}
	if w.Layer != "" {
		w.Checkpoint.Rootfs = &oci.Rootfs{
			Size:  func() (int64, error) { return layer.TarSize(ctx, w.Layer) },
			Write: func(out io.Writer) error { return layer.WriteTar(ctx, w.Layer, out) },
		}
	}
	return p.Publish(ctx, w.Checkpoint)
}

// Modesty of a process that makes an image: it yields to everybody, and as time
// goes by without an end, to fewer. With SCHED_IDLE alone it would never end on
// a machine whose processors are always busy.
const (
	idleFor   = time.Second
	modestFor = 10 * time.Second
	// Nice values, setpriority(2).
	modest    = 19
	impatient = 10
	// oomScore makes it go before the shim, which containers depend on.
	oomScore = 500
)

// beModest works as well as it can: everything goes on without.
func beModest() {
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(oomScore)), 0)
	setPolicy(unix.SchedAttr{Policy: unix.SCHED_IDLE})
	time.Sleep(idleFor)
	setPolicy(unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: modest})
	time.Sleep(modestFor)
	setPolicy(unix.SchedAttr{Policy: unix.SCHED_NORMAL, Nice: impatient})
}

// setPolicy sets that of all threads. A thread that is made meanwhile has the
// policy of the one that made it: the second round finds it.
func setPolicy(attr unix.SchedAttr) {
	attr.Size = unix.SizeofSchedAttr
	for range 2 {
		list, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return
		}
		for _, e := range list {
			if tid, err := strconv.Atoi(e.Name()); err == nil {
				_ = unix.SchedSetAttr(tid, &attr, 0)
			}
		}
	}
}
