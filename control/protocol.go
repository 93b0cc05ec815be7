package control

import (
	"context"
	"errors"
	"time"

	"github.com/crsc-io/crsc/status"
)

// SocketName is the socket in a container's state directory.
const SocketName = "control.sock"

var (
	// ErrUnreachable is returned by a client when no shim listens: the
	// container has ended, or never had the annotation.
	ErrUnreachable = errors.New("no shim listens")
	// ErrRefused is returned by a client with the shim's reason.
	ErrRefused = errors.New("refused")
	// ErrBadRequest is returned for a request that makes no sense.
	ErrBadRequest = errors.New("bad request")
)

// Handler is what a shim can be asked for. Its methods may be called
// concurrently. The context ends when the client has gone, or the server.
type Handler interface {
	// Status returns the status of this moment.
	Status(ctx context.Context) (*status.Status, error)
	// Checkpoint makes a checkpoint that begins after the call and waits until
	// it is complete, with image also until it, or a later one, has been
	// published.
	Checkpoint(ctx context.Context, image bool) (*Made, error)
	// Images lists the container's published checkpoints, the newest first.
	Images(ctx context.Context) ([]Image, error)
	// Pin makes retention pass over the image with a tag, or not any more.
	Pin(ctx context.Context, tag string, pinned bool) error
}

// Made is a checkpoint that was asked for.
type Made struct {
	Checkpoint status.Checkpoint `json:"checkpoint"`
	// Image is its image, if that was asked for.
	Image *status.Image `json:"image,omitempty"`
}

// Image is a published checkpoint.
type Image struct {
	Name     string    `json:"name"`
	Tag      string    `json:"tag"` // of the name
	Digest   string    `json:"digest"`
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"` // of the checkpoint
	Pinned   bool      `json:"pinned"`
	// Bytes is the compressed size of everything that the image needs, shared
	// with others or not; OwnBytes of what no later image of the list needs.
	Bytes    int64 `json:"bytes"`
	OwnBytes int64 `json:"own_bytes"`
}

// The operations.
const (
	opStatus     = "status"
	opCheckpoint = "checkpoint"
	opImages     = "images"
	opPin        = "pin"
)

type request struct {
	Op     string `json:"op"`
	Image  bool   `json:"image,omitempty"`
	Tag    string `json:"tag,omitempty"`
	Pinned bool   `json:"pinned,omitempty"`
}

type response struct {
	Error  string         `json:"error,omitempty"`
	Status *status.Status `json:"status,omitempty"`
	Made   *Made          `json:"made,omitempty"`
	Images []Image        `json:"images,omitempty"`
}
