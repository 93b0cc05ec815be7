package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Armed is a CRIU that has been started for a restore, has probed the kernel
// and read the images, and waits for the word to make the processes. That is
// more than half of the time of a restore, and nothing is lost if the word
// never comes. An armed restore costs a sleeping process of a few megabytes.
//
// Its methods must not be called concurrently, except Join, which is safe
// beside everything but Restore and Close.
type Armed struct {
	restore
	child  *swrk
	dir    *os.File // the images, without links
	pages  []int64  // sizes of its files of pages, by name
	cancel context.CancelCauseFunc

	ready chan struct{} // closed when CRIU waits for the word
	word  chan error    // nil: go on; else CRIU gives up
	done  chan struct{} // closed when CRIU has ended and err is set
	err   error

	joinOnce sync.Once
	joinErr  error
}

// errDisarmed makes a waiting CRIU give up.
var errDisarmed = errors.New("disarmed")

// Arm starts a restore and returns when it waits for Armed.Restore. The
// container may still run. It changes nothing outside the images' directory,
// where it writes CRIU's log. The caller ends it with Restore or with Close.
func Arm(ctx context.Context, o RestoreOptions) (*Armed, error) {
	a := &Armed{
		restore: restore{RestoreOptions: o, mark: time.Now()},
		ready:   make(chan struct{}), word: make(chan error, 1), done: make(chan struct{}),
	}
	if err := a.defaultsAndValidate(); err != nil {
		return nil, err
	}
	if err := a.start(ctx); err != nil {
		return nil, fmt.Errorf("arm restore of %s: %w", o.ID, err)
	}
	a.stats.Arm = a.lap()
	return a, nil
}

func (a *Armed) start(ctx context.Context) (err error) {
	if err := a.load(); err != nil {
		return err
	}
	namespaces, err := a.Pins.paths(a.meta)
	if err != nil {
		return err
	}
	if err := a.openDir(); err != nil {
		return err
	}
	if a.inside, err = newInside(a.Pins, a.Kerndat, a.dir); err == nil && a.inside != nil {
		err = a.inside.giveFiles(a.Stdio)
	}
	if err == nil {
		a.child, err = spawn{path: a.Path, namespaces: namespaces, inside: a.inside, stdio: a.Stdio, start: a.Start, keyring: true}.run()
	}
	if err != nil {
		return errors.Join(err, a.closeDir())
	}
	var running context.Context
	running, a.cancel = context.WithCancelCause(context.Background())
	go func() {
		defer close(a.done)
		_, a.err = a.child.call(running, a.request(a.dir), a.answer)
		_ = a.closeDir() // what stays goes with the images
	}()
	select {
	case <-a.ready:
		return nil
	case <-a.done:
		a.cancel(nil)
		return explain("restore", filepath.Join(a.Images, restoreLog), a.err)
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("%w: %w", ErrCanceled, context.Cause(ctx)), a.Close())
	}
}

func (a *Armed) openDir() error {
	path, err := makeLinkless(a.Images, a.Pins, a.Moved)
	if err != nil {
		return err
	}
	if a.pages, err = pageSizes(path); err == nil {
		a.dir, err = os.Open(path)
	}
	return err
}

// pageSizes returns the sizes of the files of pages, by name.
func pageSizes(dir string) (sizes []int64, err error) {
	list, err := filepath.Glob(filepath.Join(dir, "pages-*.img"))
	if err != nil {
		return nil, err
	}
	for _, path := range list {
		st, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, st.Size())
	}
	return sizes, nil
}

// checkPages makes sure that the pages are still there, which CRIU has not read.
func (a *Armed) checkPages() error {
	sizes, err := pageSizes(a.dir.Name())
	if err == nil && !slices.Equal(sizes, a.pages) {
		err = fmt.Errorf("%w: the files of pages have %d bytes, and had %d when the restore was armed", ErrCorrupt, sizes, a.pages)
	}
	return err
}

// closeDir leaves the images as they were, and CRIU's log among them.
func (a *Armed) closeDir() error {
	a.dir.Close()
	err := os.Rename(filepath.Join(a.dir.Name(), restoreLog), filepath.Join(a.Images, restoreLog))
	if errors.Is(err, os.ErrNotExist) {
		err = nil // CRIU has not begun
	}
	return errors.Join(err, os.RemoveAll(a.dir.Name()))
}

// answer is notify, with the wait at the point where CRIU has read everything
// and made nothing yet.
func (a *Armed) answer(script string, pid int, files []*os.File) error {
	if script == "pre-restore" {
		closeAll(files)
		close(a.ready)
		return <-a.word
	}
	return a.notify(script, pid, files)
}

// Close ends an armed restore that is not needed any more, within seconds, also if
// CRIU stands still. It is not to be called after Restore.
func (a *Armed) Close() error {
	a.word <- errDisarmed
	a.cancel(errDisarmed)
	<-a.done
	if a.err != nil && !errors.Is(a.err, errDisarmed) && !errors.Is(a.err, errEOF) {
		return a.err
	}
	return nil
}

// Join moves the armed CRIU into the cgroups of the container, whose processes
// must have ended. The kernel takes 7 ms for it, whatever the number of cgroups,
// so a caller that has other things to do after a crash calls Join meanwhile.
// Restore does it if nobody has.
func (a *Armed) Join() error {
	a.joinOnce.Do(func() { a.joinErr = a.join() })
	return a.joinErr
}

func (a *Armed) join() error {
	if err := a.loadState(); err != nil {
		return err
	}
	if err := a.checkDead(); err != nil {
		return err
	}
	if a.scope == nil {
		return joinCgroups(a.child.proc.Pid, a.cgroups)
	}
	if err := a.scope.renew(a.child.proc.Pid); err != nil {
		return err
	}
	return a.findCgroups()
}

// Restore gives the word. See the function Restore; the root file system and the
// scratch mounts have to be rolled back before. Whatever it returns, the Armed
// is used up.
func (a *Armed) Restore(ctx context.Context) (pid int, stats RestoreStats, err error) {
	a.mark = time.Now()
	if err := a.fire(ctx); err != nil {
		return 0, a.stats, fmt.Errorf("restore %s: %w", a.ID, err)
	}
	return a.pid, a.stats, nil
}

func (a *Armed) fire(ctx context.Context) error {
	joined := a.Join()
	a.stats.Join = a.lap()
	if joined != nil {
		// Nothing to clear: there are processes of the container, or no cgroup.
		return errors.Join(joined, a.Close())
	}
	unmount, err := a.mountRoot(a.child.proc.Pid)
	if err != nil {
		return errors.Join(err, a.Close(), a.clear())
	}
	defer unmount()
	if err = a.checkPages(); err == nil {
		err = a.resetNamespaces()
	}
	if err != nil {
		return errors.Join(err, a.Close(), a.clear())
	}
	a.stats.Prepare = a.lap()
	stop := context.AfterFunc(ctx, func() { a.cancel(context.Cause(ctx)) })
	defer stop()
	a.word <- nil
	<-a.done
	a.cancel(nil)
	if a.err != nil {
		return errors.Join(explain("restore", filepath.Join(a.Images, restoreLog), a.err), a.clear())
	}
	a.stats.End = a.lap()
	return nil
}
