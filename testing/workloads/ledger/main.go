// Command ledger is the workload whose memory and files must agree. It serves
// lines over TCP: "add CLIENT I" takes the I-th record of a client, appends it
// to a log in each of its directories and does something else to the files
// there, all of which it remembers; "verify" compares what it remembers with
// what the directories hold.
//
// Its answers do not depend on the order in which clients are served.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
)

func main() {
	layer := flag.String("layer", "/ledger", "a `directory` in the writable layer")
	volume := flag.String("volume", "/volume", "a `directory` on a volume; empty: none")
	flag.Parse()
	fmt.Fprintln(os.Stderr, "ledger:", run(*layer, *volume))
	os.Exit(1)
}

// run serves until it fails.
func run(layer, volume string) error {
	l := &ledger{last: map[string]int{}}
	for _, dir := range []string{layer, volume} {
		if dir == "" {
			continue
		}
		t, err := newTree(dir)
		if err != nil {
			return err
		}
		l.trees = append(l.trees, t)
	}
	l.below = &lower{}
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false) // which CRIU can't dump
	listener, err := lc.Listen(context.Background(), "tcp", ":7000")
	if err != nil {
		return err
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go l.serve(conn)
	}
}

// ledger is what is remembered.
type ledger struct {
	mu    sync.Mutex // guards all, and the files
	n     int        // records of all clients
	last  map[string]int
	trees []*tree
	below *lower
}

func (l *ledger) serve(conn net.Conn) {
	defer conn.Close()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		answer, err := l.answer(lines.Text())
		if err != nil {
			answer = "error: " + err.Error()
		}
		if _, err := io.WriteString(conn, answer+"\n"); err != nil {
			return
		}
	}
}

func (l *ledger) answer(line string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	words := strings.Fields(line)
	switch {
	case len(words) == 1 && words[0] == "verify":
		return l.verify()
	case len(words) == 3 && words[0] == "add":
		return l.add(words[1], words[2])
	}
	return "", fmt.Errorf("unknown request %q", line)
}

// add takes one record.
func (l *ledger) add(client, number string) (string, error) {
	i, err := strconv.Atoi(number)
	if err != nil {
		return "", err
	}
	if i != l.last[client]+1 {
		return fmt.Sprintf("wrong: after %d", l.last[client]), nil
	}
	l.last[client] = i
	l.n++
	record := fmt.Sprintf("%d %s %d\n", l.n, client, i)
	for _, t := range l.trees {
		if err := t.take(l.n, record); err != nil {
			return "", err
		}
	}
	if l.n%8 == 0 {
		if err := l.below.change(l.n / 8); err != nil {
			return "", err
		}
	}
	return "ok " + number, nil
}

// verify answers how many records there are, or what does not agree.
func (l *ledger) verify() (string, error) {
	for _, t := range l.trees {
		if err := t.verify(); err != nil {
			return "", fmt.Errorf("%s differs: %w", t.dir, err)
		}
	}
	if err := l.below.verify(); err != nil {
		return "", fmt.Errorf("the image's files differ: %w", err)
	}
	return fmt.Sprintf("agree %d", l.n), nil
}
