// The command teller hands each request on to a bank, whose address is its last
// argument, over a pool of connections that all its threads share.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

func main() {
	// The defaults are those of net/http.
	idle := flag.Int("idle", http.DefaultMaxIdleConnsPerHost, "connections to the bank that are kept while they are idle")
	most := flag.Int("most", 0, "connections to the bank; 0: as many as are needed")
	beat := flag.Duration("beat", 0, "how often to charge the bank by a timer; 0: never")
	beatPath := flag.String("beat-path", "/beat-", "`beginning` of what is charged by the timer; a number follows")
	flag.Parse()
	target := flag.Arg(0)
	bank := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: *idle, MaxConnsPerHost: *most}}
	if *beat > 0 {
		go beats(bank, target, *beatPath, *beat)
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // CRIU can't dump it (criu#2655)
	l, err := lc.Listen(context.Background(), "tcp", ":80")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The time of day could not come out the same a second time.
		w.Header()["Date"] = nil
		said, err := charge(r.Context(), bank, target, r.URL.Path)
		if err == nil {
			_, _ = w.Write(said)
			return
		}
		http.Error(w, err.Error(), http.StatusBadGateway)
	})))
}

func charge(ctx context.Context, bank *http.Client, target, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+target+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := bank.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

// beats charges the bank for one number after the other.
func beats(bank *http.Client, target, path string, every time.Duration) {
	n := 0
	for range time.Tick(every) {
		if _, err := charge(context.Background(), bank, target, fmt.Sprint(path, n)); err != nil {
			log.Print(err)
		}
		n++
	}
}
