package proxybench

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

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
	_, err = io.WriteString(os.Stdout, ready)
	if err == nil {
		_, err = io.Copy(io.Discard, os.Stdin)
	}
	err = errors.Join(err, p.Close())
	select {
	case fault := <-faults:
		err = errors.Join(err, fault)
	default:
	}
	return err
}
