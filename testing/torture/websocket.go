package torture

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/websocket"
)

// webSockets keeps some connections busy, each with messages of its own.
func webSockets(ctx context.Context, r *runner) (string, error) {
	const conns = 10
	messages, pause := 200, time.Duration(0)
	if r.long {
		messages, pause = 1000, 10*time.Millisecond
	}
	said := make([]string, conns)
	var wg sync.WaitGroup
	for i := range said {
		wg.Go(func() {
			conn, err := r.dial(r.kind.port)
			if err == nil {
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				said[i], err = chat(conn, i, messages, pause)
			}
			if err != nil {
				said[i] += fmt.Sprintf(" then %v", err)
			}
		})
	}
	wg.Wait()
	return strings.Join(said, "\n"), ctx.Err()
}

// chat has a connection echo messages, each of which is another one.
func chat(conn net.Conn, who, messages int, pause time.Duration) (string, error) {
	defer conn.Close()
	ws, err := openWebSocket(conn)
	if err != nil {
		return "", err
	}
	same := 0
	said := func() string { return fmt.Sprintf("%d: %d messages came back", who, same) }
	for n := range messages {
		_ = conn.SetDeadline(time.Now().Add(patience))
		msg := bytes.Repeat(fmt.Appendf(nil, "%d of %d ", n, who), 1+n%50)
		back, err := echo(ws, msg)
		if err != nil {
			return said(), err
		}
		if !back {
			return said(), fmt.Errorf("message %d came back changed", n)
		}
		same++
		time.Sleep(pause)
	}
	return said(), nil
}

// sockets echoes WebSocket messages of all sizes.
func sockets(conn net.Conn) (string, error) {
	ws, err := openWebSocket(conn)
	if err != nil {
		return "", err
	}
	same := 0
	for n := 1; n < 200_000; n += n/3 + 1 {
		back, err := echo(ws, bytes.Repeat([]byte{byte(n)}, n))
		if err != nil {
			return "", err
		}
		if back {
			same++
		}
	}
	return fmt.Sprintf("websocket: %d messages came back", same), ws.Close()
}

func openWebSocket(conn net.Conn) (*websocket.Conn, error) {
	at := &url.URL{Scheme: "ws", Host: conn.RemoteAddr().String(), Path: "/websocket"}
	return websocket.NewClient(&websocket.Config{Location: at, Origin: at, Version: websocket.ProtocolVersionHybi13}, conn)
}

// echo reports whether the message came back as it was.
func echo(ws *websocket.Conn, msg []byte) (bool, error) {
	if err := websocket.Message.Send(ws, msg); err != nil {
		return false, err
	}
	var got []byte
	err := websocket.Message.Receive(ws, &got)
	return bytes.Equal(msg, got), err
}
