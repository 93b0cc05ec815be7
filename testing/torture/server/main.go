// The command server answers in the many ways of Go's net/http, and echoes over
// WebSocket.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"

	"golang.org/x/net/websocket"
)

func main() {
	http.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		// HTTP/1 servers otherwise stop reading when they begin to answer.
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			panic(err)
		}
		w.Header().Set("Trailer", "Count")
		n, err := io.Copy(w, r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Count", fmt.Sprint(n))
	})
	http.HandleFunc("/blob", func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Date"] = nil // HTTP/2 compresses it into another form each second
		_, _ = io.WriteString(w, strings.Repeat("HTTP/2 ", 2000))
	})
	http.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		for i := range 100 {
			_, _ = fmt.Fprintf(w, "event %d\n", i)
			_ = http.NewResponseController(w).Flush()
		}
	})
	http.HandleFunc("/refuse", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "too much", http.StatusRequestEntityTooLarge) // the body is not read
	})
	http.HandleFunc("/abort", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, "cut off")
		panic(http.ErrAbortHandler)
	})
	http.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: raw\r\nConnection: Upgrade\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw) // until the client's half-close
		_, _ = io.WriteString(conn, "end")
	})
	http.Handle("/websocket", websocket.Handler(func(ws *websocket.Conn) {
		for {
			var b []byte
			if websocket.Message.Receive(ws, &b) != nil || websocket.Message.Send(ws, b) != nil {
				return
			}
		}
	}))
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // CRIU can't dump it (criu#2655)
	l, err := lc.Listen(context.Background(), "tcp", ":8080")
	if err != nil {
		log.Fatal(err)
	}
	server := http.Server{Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	log.Fatal(server.Serve(l))
}
