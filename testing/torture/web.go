package torture

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"time"

	"github.com/crsc-io/crsc/netproxy/netns"
)

// web asks the server of this package in the ways that net/http's tests do.
func web(ctx context.Context, r *runner) (string, error) {
	dial := func(context.Context, string, string) (net.Conn, error) { return r.dial(8080) }
	tr := &http.Transport{DialContext: dial, ExpectContinueTimeout: 10 * time.Second}
	defer tr.CloseIdleConnections()
	w := &webClient{base: "http://" + r.addr(8080), c: &http.Client{Transport: tr, Timeout: time.Minute}}
	w.keepAlive(ctx)
	for _, size := range []int{0, 1, 100_000, 3_000_000} {
		w.echo(ctx, size)
	}
	for _, path := range []string{"/stream", "/abort", "/nothing"} {
		w.get(ctx, path)
	}
	w.refused(ctx)
	for _, talk := range []func(net.Conn) (string, error){hijack, sockets} {
		conn, err := dial(ctx, "", "")
		if err != nil {
			return w.log.String(), err
		}
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		said, err := talk(conn)
		fmt.Fprintf(&w.log, "%s %v\n", said, err)
		conn.Close()
	}
	return w.log.String(), nil
}

// dial connects from the clients' namespace.
func (r *runner) dial(port uint16) (c net.Conn, err error) {
	err = netns.Do(r.clientNS, func() error {
		c, err = net.DialTimeout("tcp", r.addr(port), 10*time.Second)
		return err
	})
	return c, err
}

type webClient struct {
	base string
	c    *http.Client
	log  strings.Builder
}

// do notes what came back.
func (w *webClient) do(req *http.Request, err error) {
	if err != nil {
		fmt.Fprintf(&w.log, "%v\n", err)
		return
	}
	res, err := w.c.Do(req)
	if err != nil {
		fmt.Fprintf(&w.log, "%s: %v\n", req.URL.Path, errors.Unwrap(err))
		return
	}
	defer res.Body.Close()
	h := sha256.New()
	n, err := io.Copy(h, res.Body)
	fmt.Fprintf(&w.log, "%s: %d, %d bytes, %x, %v, trailer %v\n", req.URL.Path, res.StatusCode, n, h.Sum(nil)[:4], err, res.Trailer)
}

func (w *webClient) get(ctx context.Context, path string) {
	w.do(http.NewRequestWithContext(ctx, http.MethodGet, w.base+path, nil))
}

// echo sends chunks, since the length is not told.
func (w *webClient) echo(ctx context.Context, size int) {
	body := io.MultiReader(bytes.NewReader(bytes.Repeat([]byte("0123456789"), size/10)), bytes.NewReader(make([]byte, size%10)))
	w.do(http.NewRequestWithContext(ctx, http.MethodPost, w.base+"/echo", body))
}

// keepAlive counts the connections of many requests.
func (w *webClient) keepAlive(ctx context.Context) {
	opened := 0
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if !i.Reused {
			opened++
		}
	}})
	for range 50 {
		w.log.Reset()
		w.do(http.NewRequestWithContext(ctx, http.MethodHead, w.base+"/stream", nil))
	}
	fmt.Fprintf(&w.log, "%d connections\n", opened)
}

// refused sends a body that the server answers without reading, after it was
// asked whether it wants it.
func (w *webClient) refused(ctx context.Context) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.base+"/refuse", bytes.NewReader(make([]byte, 1<<20)))
	if err == nil {
		req.Header.Set("Expect", "100-continue")
	}
	w.do(req, err)
}

// hijack speaks another protocol over the connection, and half-closes it.
func hijack(conn net.Conn) (string, error) {
	if _, err := io.WriteString(conn, "GET /hijack HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return "", err
	}
	b := bufio.NewReader(conn)
	for {
		line, err := b.ReadString('\n')
		if err != nil {
			return "", err
		}
		if line == "\r\n" {
			break
		}
	}
	if _, err := conn.Write(make([]byte, 300_000)); err != nil {
		return "", err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	all, err := io.ReadAll(b)
	return fmt.Sprintf("hijacked: %d bytes, ends with %q", len(all), all[max(0, len(all)-3):]), err
}
