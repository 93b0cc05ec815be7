// The command teller hands each request on to a bank, whose address is its
// argument, over a pool of connections that all its threads share.
package main

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

// poolSize is how many connections to the bank are kept while they are idle;
// more than there are clients.
const poolSize = 64

func main() {
	bank := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: poolSize}}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // CRIU can't dump it (criu#2655)
	l, err := lc.Listen(context.Background(), "tcp", ":80")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The time of day could not come out the same a second time.
		w.Header()["Date"] = nil
		req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://"+os.Args[1]+r.URL.Path, http.NoBody)
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
