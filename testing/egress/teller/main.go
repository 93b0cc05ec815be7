// The command teller charges a bank, whose address is its last argument, for each
// request, over a pool of connections that all its threads share.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"time"
)

// charge charges the bank once, and returns what it has been charged for.
type charge func(ctx context.Context, id string) (string, error)

// limits are those of a pool; 0: what the library does by default.
type limits struct {
	idle int // connections that are kept while they are idle
	most int // connections at all
}

func main() {
	kind := flag.String("bank", "pool", "what the bank speaks: pool (HTTP), redis or postgres")
	var l limits
	flag.IntVar(&l.idle, "idle", 0, "connections to the bank that are kept while they are idle; 0: the library's default")
	flag.IntVar(&l.most, "most", 0, "connections to the bank; 0: the library's default")
	beat := flag.Duration("beat", 0, "how often to charge the bank by a timer; 0: never")
	beatID := flag.String("beat-id", "beat-", "`beginning` of what is charged by the timer; a number follows")
	flag.Parse()
	pay, err := open(*kind, flag.Arg(0), l)
	if err != nil {
		log.Fatal(err)
	}
	if *beat > 0 {
		go beats(pay, *beatID, *beat)
	}
	log.Fatal(serve(pay))
}

func open(kind, target string, l limits) (charge, error) {
	switch kind {
	case "pool":
		return openWeb(target, l), nil
	case "redis":
		return openRedis(target, l), nil
	case "postgres":
		return openPostgres(target, l)
	}
	return nil, fmt.Errorf("bank %q: want pool, redis or postgres", kind)
}

func serve(pay charge) error {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // CRIU can't dump it (criu#2655)
	l, err := lc.Listen(context.Background(), "tcp", ":80")
	if err != nil {
		return err
	}
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The time of day could not come out the same a second time.
		w.Header()["Date"] = nil
		said, err := pay(r.Context(), strings.TrimPrefix(r.URL.Path, "/"))
		if err == nil {
			fmt.Fprint(w, said)
			return
		}
		log.Print(err)
		http.Error(w, err.Error(), http.StatusBadGateway)
	}))
}

// beats charges the bank for one number after the other.
func beats(pay charge, id string, every time.Duration) {
	n := 0
	for range time.Tick(every) {
		if _, err := pay(context.Background(), fmt.Sprint(id, n)); err != nil {
			log.Print(err)
		}
		n++
	}
}
