package lifecycle

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	runc "github.com/containerd/go-runc"
)

// CheckpointRequest is a checkpoint on the orchestrator's request, made with
// `runc checkpoint`, after one of the guard's own.
type CheckpointRequest struct {
	// Path is the directory for the images.
	Path string
	// WorkPath is the directory for CRIU's logs; empty: one that is removed.
	WorkPath string
	// Exit ends the container with the checkpoint.
	Exit                bool
	OpenTCP             bool
	ExternalUnixSockets bool
	Terminal            bool
	FileLocks           bool
	EmptyNamespaces     []string
}

// Checkpoint dumps the container. It waits for the end of a recovery.
//
// Errors: ErrTransition, the context's, and the first line of runc's message
// with the path of CRIU's log.
func (c *Container) Checkpoint(ctx context.Context, r CheckpointRequest) error {
	if g := c.currentGuard(); g != nil && c.require("checkpoint", PhaseRunning, PhasePaused) == nil {
		r.OpenTCP = g.Checkpointing(ctx, c) || r.OpenTCP
	}
	release, err := c.settle(ctx, turns)
	if err != nil {
		return err
	}
	defer release()
	if err := c.require("checkpoint", PhaseRunning, PhasePaused); err != nil {
		return err
	}
	if r.Exit {
		// The end of the container is what was asked for, not a crash.
		c.mu.Lock()
		c.killed = true
		c.mu.Unlock()
	}
	var actions []runc.CheckpointAction
	if !r.Exit {
		actions = append(actions, runc.LeaveRunning)
	}
	work := r.WorkPath
	if work == "" {
		work = filepath.Join(c.bundle, workDir, "criu-work")
		defer os.RemoveAll(work)
	}
	err = c.runc.Checkpoint(ctx, c.id, &runc.CheckpointOpts{
		WorkDir:                  work,
		ImagePath:                r.Path,
		AllowOpenTCP:             r.OpenTCP,
		AllowExternalUnixSockets: r.ExternalUnixSockets,
		AllowTerminal:            r.Terminal,
		FileLocks:                r.FileLocks,
		EmptyNamespaces:          r.EmptyNamespaces,
	}, actions...)
	if err == nil {
		return nil
	}
	if r.Exit {
		c.mu.Lock()
		c.killed = false
		c.mu.Unlock()
	}
	kept := filepath.Join(c.bundle, "criu-dump.log")
	if cerr := copyFile(kept, filepath.Join(work, "dump.log")); cerr != nil {
		c.logger(ctx).WithError(cerr).Error("failed to copy dump.log to criu-dump.log")
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	return fmt.Errorf("%s path= %s", first, kept)
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close()
		return err
	}
	return dst.Close()
}
