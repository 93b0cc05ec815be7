package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/status"
)

// Client asks the shim of one container. Its methods may be called
// concurrently.
//
// Errors of all of them: ErrUnreachable; ErrRefused with the shim's reason; the
// context's.
type Client struct {
	Dir string // the container's state directory
}

// Status returns the status of this moment.
func (c *Client) Status(ctx context.Context) (*status.Status, error) {
	out, err := c.ask(ctx, request{Op: opStatus})
	return out.Status, err
}

// Checkpoint makes a checkpoint now and waits for it, with image also for its
// image. When ctx ends earlier it is given up.
func (c *Client) Checkpoint(ctx context.Context, image bool) (*Made, error) {
	out, err := c.ask(ctx, request{Op: opCheckpoint, Image: image})
	if err == nil && out.Made == nil {
		err = fmt.Errorf("%w: the answer is empty", ErrRefused)
	}
	return out.Made, err
}

// Images lists the published checkpoints, the newest first.
func (c *Client) Images(ctx context.Context) ([]Image, error) {
	out, err := c.ask(ctx, request{Op: opImages})
	return out.Images, err
}

// Pin keeps the image with a tag from being removed by retention, or no longer.
func (c *Client) Pin(ctx context.Context, tag string, pinned bool) error {
	_, err := c.ask(ctx, request{Op: opPin, Tag: tag, Pinned: pinned})
	return err
}

func (c *Client) ask(ctx context.Context, req request) (out response, err error) {
	d, err := openPrivate(c.Dir)
	if err != nil {
		return out, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer d.Close()
	conn, err := net.DialUnix("unix", nil, socketIn(d))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return out, fmt.Errorf("%w at %s/%s: the container has ended, or its shim is gone", ErrUnreachable, c.Dir, SocketName)
	}
	if err != nil {
		return out, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Now()) })()
	if err = json.NewEncoder(conn).Encode(&req); err == nil {
		err = json.NewDecoder(conn).Decode(&out)
	}
	if ctx.Err() != nil {
		return response{}, ctx.Err()
	}
	if err != nil {
		return response{}, fmt.Errorf("%w: the shim ended before it answered: %w", ErrUnreachable, err)
	}
	if out.Error != "" {
		return response{}, fmt.Errorf("%w: %s", ErrRefused, out.Error)
	}
	return out, nil
}
