package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
)

const talkPort = ":7070"

// conversations are connections that stay open, and what became of them.
type conversations struct {
	mu    sync.Mutex
	open  int
	ended []string
}

// accept answers each line of each client with itself.
func (cs *conversations) accept(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		cs.begin()
		go func() {
			defer c.Close()
			cs.end("incoming", echo(c))
		}()
	}
}

func echo(c net.Conn) error {
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if _, err := io.WriteString(c, line); err != nil {
			return err
		}
	}
}

// dial opens a connection to a server, and reads until it ends.
func (cs *conversations) dial(w http.ResponseWriter, r *http.Request) {
	c, err := net.Dial("tcp", r.URL.Query().Get("to"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	cs.begin()
	go func() {
		defer c.Close()
		_, err := io.Copy(io.Discard, c)
		if err == nil {
			err = io.EOF
		}
		cs.end("outgoing", err)
	}()
	fmt.Fprintln(w, "ok")
}

// listen takes conversations on one more port of the address that the program was
// started with.
func (cs *conversations) listen(w http.ResponseWriter, r *http.Request) {
	l, err := listen(os.Getenv("BIND") + ":" + r.URL.Query().Get("port"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	go func() { _ = cs.accept(l) }() // it goes on to the program's end
	fmt.Fprintln(w, "ok")
}

func (cs *conversations) begin() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.open++
}

func (cs *conversations) end(kind string, err error) {
	how := err.Error()
	if errors.Is(err, io.EOF) {
		how = "end"
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.open--
	cs.ended = append(cs.ended, kind+": "+how)
}

// report says how many are open, and how the others ended.
func (cs *conversations) report(w http.ResponseWriter, _ *http.Request) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	fmt.Fprintf(w, "%d open; %s\n", cs.open, strings.Join(cs.ended, ", "))
}
