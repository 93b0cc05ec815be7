package proxybench

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/crsc-io/crsc/journal"
	"github.com/crsc-io/crsc/netproxy"
	"github.com/crsc-io/crsc/netproxy/order"
	"github.com/crsc-io/crsc/netproxy/redirect"
)

// ServeCommand is the first argument of a run that is a proxy.
const ServeCommand = "serve"

// ready is what a proxy prints when it stands.
const ready = "ready\n"

// Serve is the proxy with the options that the shim gives it, in a process of its
// own, until its input ends. It returns the exit status: 0 only if everything was
// journaled.
func Serve(args []string) int {
	flags := flag.NewFlagSet(ServeCommand, flag.ExitOnError)
	ns := flags.String("netns", "", "`file` of the network namespace")
	dir := flags.String("journal", "", "`directory` of the journal, destroyed at the end")
	if err := flags.Parse(args); err != nil {
		return 2 // not reached: ExitOnError
	}
	if err := serve(*ns, *dir); err != nil {
		fmt.Fprintf(os.Stderr, "proxy: %v\n", err)
		return 1
	}
	return 0
}

func serve(nsPath, dir string) (err error) {
	j, err := journal.Open(journal.Options{Dir: dir, MaxBytes: 64 << 30})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Destroy()) }()
	ns, err := os.Open(nsPath)
	if err != nil {
		return err
	}
	defer ns.Close()
	log := logrus.New()
	log.SetOutput(os.Stderr)
	faults := make(chan error, 1)
	p, err := netproxy.New(netproxy.Options{
		NetNS: int(ns.Fd()), Name: "bench", Journal: j, Order: order.Tracepoint, Egress: true,
		Owns:        func([]uint32) redirect.Ownership { return redirect.Ours },
		Dying:       func() netproxy.Dying { return netproxy.Alive },
		OnFault:     func(err error) { faults <- err },
		OnOrderLost: func() { log.Warn("order lost") },
		Log:         logrus.NewEntry(log),
	})
	if err != nil {
		return err
	}
	trimmed := make(chan error, 1)
	ended := make(chan struct{})
	go func() { trimmed <- trim(j, ended) }()
	_, err = io.WriteString(os.Stdout, ready)
	if err == nil {
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	close(ended)
	err = errors.Join(err, p.Close(), <-trimmed)
	select {
	case fault := <-faults:
		err = errors.Join(err, fault)
	default:
	}
	return err
}

// kept is how much of the journal is kept: what two checkpoints of the default settings
// have between them.
const kept = 8 << 20

// trim does for the journal what checkpoints do, until ended is closed: segments are
// used again and again. Without it each page of the journal would be a new one.
func trim(j *journal.Journal, ended <-chan struct{}) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return nil
		case <-tick.C:
		}
		if end := j.Committed(); end > kept {
			if err := j.TrimBefore(end - kept); err != nil {
				return err
			}
		}
	}
}
