// The command teller hands each request on to a bank, whose address is its last
// argument, over a pool of connections that all its threads share.
package main

import (
	"context"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
)

func main() {
	// The defaults are those of net/http.
	idle := flag.Int("idle", http.DefaultMaxIdleConnsPerHost, "connections to the bank that are kept while they are idle")
	most := flag.Int("most", 0, "connections to the bank; 0: as many as are needed")
	flag.Parse()
	target := flag.Arg(0)
	bank := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: *idle, MaxConnsPerHost: *most}}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // CRIU can't dump it (criu#2655)
	l, err := lc.Listen(context.Background(), "tcp", ":80")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The time of day could not come out the same a second time.
		w.Header()["Date"] = nil
		req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://"+target+r.URL.Path, http.NoBody)
		if err == nil {
			var res *http.Response
			if res, err = bank.Do(req); err == nil {
				defer res.Body.Close()
				_, _ = io.Copy(w, res.Body)
				return
			}
		}
		http.Error(w, err.Error(), http.StatusBadGateway)
	})))
}
