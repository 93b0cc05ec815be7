package netns_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/crsc-io/crsc/netproxy/internal/nstest"
	"github.com/crsc-io/crsc/netproxy/netns"
)

func TestDoEntersAndLeaves(t *testing.T) {
	ns := nstest.New(t)
	want, err := netns.Inum(ns)
	if err != nil {
		t.Fatal(err)
	}
	home, err := netns.Inum(netns.Current)
	if err != nil {
		t.Fatal(err)
	}
	if want == home {
		t.Fatal("the test namespace is our own")
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			err := netns.Do(ns, func() error {
				got, err := netns.Inum(netns.Current)
				if err == nil && got != want {
					err = errors.New("fn ran in another namespace")
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
			if got, _ := netns.Inum(netns.Current); got != home {
				t.Errorf("caller is in namespace %d, want %d", got, home)
			}
		})
	}
	wg.Wait()
}

func TestDoReturnsError(t *testing.T) {
	sentinel := errors.New("x")
	if err := netns.Do(nstest.New(t), func() error { return sentinel }); err != sentinel {
		t.Fatalf("got %v", err)
	}
	if err := netns.Do(0, func() error { return nil }); err == nil {
		t.Fatal("a descriptor that is no namespace was accepted")
	}
}
