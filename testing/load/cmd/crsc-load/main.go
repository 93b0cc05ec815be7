// The command crsc-load drives a Redis server and checks every reply. It prints
// the result as JSON and fails if one reply was missing or wrong.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/crsc-io/crsc/testing/load"
)

func main() {
	var o load.Options
	flag.StringVar(&o.Netns, "netns", os.Getenv("CRSC_CLIENT_NETNS"), "path of the clients' network `namespace`")
	flag.TextVar(&o.Target, "target", o.Target, "`address:port` of the server")
	flag.IntVar(&o.Connections, "connections", 50, "number of clients")
	flag.IntVar(&o.Pipeline, "pipeline", 1, "requests in flight per client")
	flag.Float64Var(&o.Rate, "rate", 0, "requests per second of all clients together; 0: as many as possible")
	flag.IntVar(&o.ReconnectEvery, "reconnect-every", 0, "open a new connection after so many requests; 0: never")
	flag.DurationVar(&o.Timeout, "timeout", 30*time.Second, "longest wait for one reply")
	duration := flag.Duration("duration", 10*time.Second, "how long")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, *duration); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o load.Options, d time.Duration) error {
	l, err := load.Start(ctx, o)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	result, err := l.Stop(context.Background())
	if jerr := json.NewEncoder(os.Stdout).Encode(result); err == nil {
		err = jerr
	}
	if err == nil && !result.Clean() {
		err = fmt.Errorf("not clean: %d errors, %d wrong replies, %d lost, %d doubled",
			result.ClientErrors, result.WrongReplies, result.Lost, result.Doubled)
	}
	return err
}
