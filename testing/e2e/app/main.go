// Command app is the application that the end-to-end tests run in containers.
// It keeps a count in memory and the same count in a file, and serves lines
// over TCP: "add" counts and answers the count, "check" answers what memory and
// file hold, "die" ends the program with status 7. Each addition is also told on standard output.
//
// With -datagrams it is the server of package datagrams instead.
//
// SIGUSR1 makes it exit with status 3, SIGUSR2 with 0, SIGTERM with 143.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/crsc-io/crsc/testing/datagrams"
)

func main() {
	file := flag.String("file", "/data.log", "the file that is appended to")
	mptcp := flag.Bool("mptcp", false, "listen with Multipath TCP, which CRIU cannot dump")
	udp := flag.Bool("datagrams", false, "serve by UDP what package datagrams asks for")
	flag.Parse()
	if *udp {
		fmt.Fprintln(os.Stderr, "app:", datagrams.Serve())
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, "app:", run(*file, *mptcp))
	os.Exit(1)
}

// run serves until it fails.
func run(file string, mptcp bool) error {
	go obey()
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	c := &counter{file: f}
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(mptcp)
	l, err := lc.Listen(context.Background(), "tcp", ":7000")
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go c.serve(conn)
	}
}

// obey ends the program the way a signal asks for.
func obey() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTERM)
	status := map[os.Signal]int{syscall.SIGUSR1: 3, syscall.SIGUSR2: 0, syscall.SIGTERM: 143}
	os.Exit(status[<-signals])
}

// counter counts in memory and in a file.
type counter struct {
	mu   sync.Mutex // guards n and the file
	n    int
	file *os.File
}

func (c *counter) serve(conn net.Conn) {
	defer conn.Close()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		answer, err := c.answer(lines.Text())
		if err != nil {
			answer = "error: " + err.Error()
		}
		if _, err := io.WriteString(conn, answer+"\n"); err != nil {
			return
		}
	}
}

func (c *counter) answer(word string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch word {
	case "add":
		c.n++
		if _, err := fmt.Fprintf(c.file, "%d\n", c.n); err != nil {
			return "", err
		}
		fmt.Printf("added %d\n", c.n)
		return fmt.Sprint(c.n), nil
	case "check":
		data, err := os.ReadFile(c.file.Name())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		return fmt.Sprintf("memory %d file %d", c.n, bytes.Count(data, []byte("\n"))), nil
	}
	if word == "die" {
		os.Exit(7)
	}
	return "", fmt.Errorf("unknown word %q", word)
}
