package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/errdefs"
	runc "github.com/containerd/go-runc"
)

// runcRoot is where containerd's shims keep runc's state unless told otherwise.
const runcRoot = "/run/containerd/runc"

// newRunc returns the client for the containers of one bundle.
func newRunc(o *options.Options, bundle, namespace string) *runc.Runc {
	root := o.Root
	if root == "" {
		root = runcRoot
	}
	return &runc.Runc{
		Command:       o.BinaryName,
		Log:           filepath.Join(bundle, "log.json"),
		LogFormat:     runc.JSON,
		PdeathSignal:  syscall.SIGKILL,
		Root:          filepath.Join(root, namespace),
		SystemdCgroup: o.SystemdCgroup,
	}
}

// runcError replaces err by what runc wrote to its log, which says more.
func runcError(r *runc.Runc, err error, operation string) error {
	if err == nil {
		return nil
	}
	msg, lerr := lastRuncError(r.Log)
	switch {
	case lerr != nil:
		return fmt.Errorf("%s: unable to retrieve OCI runtime error (%w): %w", operation, lerr, err)
	case msg == "":
		return fmt.Errorf("%s: %w", operation, err)
	}
	return fmt.Errorf("%s: %s", operation, msg)
}

// lastRuncError returns the last error in runc's log, empty if there is none.
func lastRuncError(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var last string
	for dec := json.NewDecoder(f); ; {
		var line struct{ Level, Msg string }
		if err := dec.Decode(&line); errors.Is(err, io.EOF) {
			return last, nil
		} else if err != nil {
			return "", err
		}
		if line.Level == "error" {
			last = strings.TrimSpace(line.Msg)
		}
	}
}

// killError tells a process or container that is gone from a real failure.
func killError(err error) error {
	if err == nil {
		return nil
	}
	msg := strings.ToLower(err.Error())
	switch {
	case strings.Contains(msg, "process already finished"),
		strings.Contains(msg, "container not running"),
		strings.Contains(msg, "no such process"):
		return ErrFinished
	case strings.Contains(msg, "does not exist"):
		return fmt.Errorf("no such container: %w", errdefs.ErrNotFound)
	}
	return fmt.Errorf("unknown error after kill: %w", err)
}

// deleteRunc removes runc's state of the container. State that is gone already
// is no error: a checkpoint that ends the container removes it.
func deleteRunc(ctx context.Context, r *runc.Runc, id string, force bool) error {
	err := r.Delete(ctx, id, &runc.DeleteOpts{Force: force})
	if err == nil || strings.Contains(err.Error(), "does not exist") {
		return nil
	}
	return runcError(r, err, "failed to delete task")
}
