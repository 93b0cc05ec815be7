package cases

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/containerd/console"
)

// attach: who is attached to a terminal stays, and finds the same shell.
func attach(t *T) {
	ns := t.namespace()
	t.apply(ns, head+`
  containers:
  - name: app
    image: `+busyboxImage+`
    imagePullPolicy: IfNotPresent
    tty: true
    stdin: true
`)
	p := t.ready(ns, "p")
	p.protected("app")
	pty, path, err := console.NewPty()
	t.must(err)
	defer pty.Close()
	slave, err := os.OpenFile(path, os.O_RDWR, 0)
	t.must(err)
	cmd := t.c.Command(t.ctx, "kubectl", "attach", "-n", ns, "-it", "p")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	t.must(cmd.Start())
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }() // it has ended, as a rule
	slave.Close()
	s := follow(pty)
	t.ask(s, "v=kept; echo =$((1000+1))=", "=1001=")
	for i := range 2 {
		last := p.status("app").Checkpoints.Last.Sequence
		t.await(func(context.Context) error {
			if c := p.status("app").Checkpoints; c.Last.Sequence <= last+1 {
				return fmt.Errorf("no checkpoint after %d: %s", last, c.LastError)
			}
			return nil
		})
		t.worst("recovery_ms", p.kill("app"))
		t.ask(s, fmt.Sprintf("echo =$v=$((2000+%d))", i), fmt.Sprintf("=kept=%d", 2000+i))
	}
	t.check(p.restarts("app") == "0", "restart count is %s", p.restarts("app"))
}

// screen is what somebody at a terminal sees.
type screen struct {
	pty console.Console

	mu  sync.Mutex // guards what follows
	out strings.Builder
}

// follow reads until the terminal is closed.
func follow(pty console.Console) *screen {
	s := &screen{pty: pty}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := pty.Read(buf)
			s.mu.Lock()
			s.out.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// ask types a command and waits for what it puts out; what is typed is echoed.
func (t *T) ask(s *screen, command, want string) {
	_, err := fmt.Fprintf(s.pty, "%s\n", command)
	t.must(err)
	t.await(func(context.Context) error {
		if out := s.text(); !strings.Contains(out, want) {
			return fmt.Errorf("waiting for %q: %q", want, out)
		}
		return nil
	})
}
