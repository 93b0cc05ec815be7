package redirect

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// watcher repairs the redirection as soon as somebody takes a part of it away.
// The table can't be taken; routing rules, routes and the state of lo can.
type watcher struct {
	conn   *netlink.Conn
	closed atomic.Bool
	wg     sync.WaitGroup
}

// calm is how long changes are collected before they are looked at: who flushes
// rules may well add others in the next moment.
const calm = 5 * time.Millisecond

func watch(ns int) (*watcher, error) {
	w := &watcher{}
	err := netns.Do(ns, func() (err error) {
		w.conn, err = netlink.Dial(unix.NETLINK_ROUTE, nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	// A lost message is as good as a received one: what stands is looked at.
	err = w.conn.SetOption(netlink.NoENOBUFS, true)
	for _, group := range []uint32{
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
	} {
		if err == nil {
			err = w.conn.JoinGroup(group)
		}
	}
	if err != nil {
		w.conn.Close()
		return nil, fmt.Errorf("watch routes: %w", err)
	}
	return w, nil
}

// start calls changed after each change of a rule or link and loss of a route.
func (w *watcher) start(changed func()) {
	w.wg.Go(func() {
		for {
			msgs, err := w.conn.Receive()
			if w.closed.Load() {
				return
			}
			if err != nil {
				time.Sleep(time.Second) // none is known to last
				changed()
				continue
			}
			if relevant(msgs) {
				time.Sleep(calm)
				changed()
			}
		}
	})
}

func relevant(msgs []netlink.Message) bool {
	for _, m := range msgs {
		switch m.Header.Type {
		case unix.RTM_DELRULE, unix.RTM_NEWRULE, unix.RTM_DELROUTE, unix.RTM_NEWLINK:
			return true
		}
	}
	return false
}

func (w *watcher) close() error {
	w.closed.Store(true)
	err := w.conn.Close()
	w.wg.Wait()
	return err
}
