package env

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Require returns the shared environment for one test, bringing it up if it is
// down. When the last test that uses it ends, it is taken down again, unless
// somebody brought it up with testing/env/env. A missing prerequisite is a
// failure, never a skip.
func Require(t testing.TB) *Env { return RequireInstance(t, "") }

// RequireInstance is Require with an environment of its own, for tests that
// restart or break the daemon.
func RequireInstance(t testing.TB, instance string) *Env {
	t.Helper()
	e, err := Locate(instance)
	if err != nil {
		t.Fatalf("test environment: %v", err)
	}
	release, err := e.acquire(context.Background())
	if err != nil {
		t.Fatalf("test environment: %v", err)
	}
	t.Cleanup(func() {
		if err := e.release(release); err != nil {
			t.Errorf("test environment: %v", err)
		}
	})
	return e
}

func (e *Env) acquire(ctx context.Context) (release func(), err error) {
	unlock, err := e.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := e.upLocked(ctx); err != nil {
		return nil, err
	}
	return e.useLocked()
}

func (e *Env) release(release func()) error {
	unlock, err := e.lock()
	if err != nil {
		return err
	}
	defer unlock()
	release()
	if _, err := os.Stat(e.keepFile()); err == nil || !e.unusedLocked() {
		return nil
	}
	return e.downLocked(context.Background())
}

// serial makes names unique within this process; the pid does across processes.
var serial atomic.Uint64

// UniqueName returns a name that no other test uses, valid as a container ID.
func UniqueName(t testing.TB) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(strings.TrimPrefix(t.Name(), "Test")))
	return fmt.Sprintf("%.24s-%d-%d", name, os.Getpid(), serial.Add(1))
}

// NewPod makes a pod's network namespace for one test.
func (e *Env) NewPod(t testing.TB) *Netns {
	t.Helper()
	name := UniqueName(t)
	pod, err := e.MakePod(name)
	if err != nil {
		t.Fatalf("pod network: %v", err)
	}
	t.Cleanup(func() {
		if err := e.RemovePod(name); err != nil {
			t.Errorf("pod network: %v", err)
		}
	})
	return pod
}

// MustCtr runs ctr, and fails the test if it fails.
func (e *Env) MustCtr(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := e.Ctr(ctx, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, e.logTail())
	}
	return out
}

// RemoveContainer kills and removes a container and its task at the end of a
// test. A container that is gone by then is fine.
func (e *Env) RemoveContainer(t testing.TB, id string) {
	t.Cleanup(func() {
		if err := e.DeleteContainer(context.Background(), id); err != nil {
			t.Errorf("remove container: %v", err)
		}
	})
}
