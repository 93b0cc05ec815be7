package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/oci"
	"github.com/crsc-io/crsc/status"
)

// grpcAddress is the environment variable in which containerd gives a shim the
// address of its API.
const grpcAddress = "GRPC_ADDRESS"

// errNoAddress is returned if a shim was started without that.
var errNoAddress = errors.New("containerd did not tell the shim its address (" + grpcAddress + ")")

// preparePublishing sets the publisher up, if images are wanted.
func (g *guard) preparePublishing() {
	if !g.cfg.Publish {
		return
	}
	p := newPublisher(g.publishDir(), g.files)
	if g.store.memory != nil {
		p.memory = filepath.Join(g.memoryDir(), "published")
	}
	p.work, p.made, p.failed = g.imageWork, g.noteImage, g.imageFailed
	g.images = p
	g.mu.Lock()
	g.status.Images = &status.Images{}
	g.mu.Unlock()
}

func (g *guard) publishDir() string { return filepath.Join(g.dir, "publish") }

// imageWork is what the making of all images of the container needs.
func (g *guard) imageWork(ctx context.Context) (*imageWork, error) {
	origin, err := g.origins(ctx)
	if err != nil {
		return nil, err
	}
	return &imageWork{
		Dir: filepath.Join(g.publishDir(), "chain"), Origin: origin,
		Retention: oci.Retention{
			Last: g.cfg.PublishKeep, Hourly: g.cfg.PublishHourly, Daily: g.cfg.PublishDaily,
			MaxBytes: g.cfg.PublishMaxSize, NodeMaxBytes: g.cfg.NodePublishMaxSize,
		},
		SigningKey: g.cfg.Images.SigningKey, EncryptFor: g.cfg.Images.EncryptFor,
	}, nil
}

// dialStore connects to containerd's API, by the address that it has given to
// the shim.
func dialStore() (*oci.Store, error) {
	address := os.Getenv(grpcAddress)
	if address == "" {
		return nil, errNoAddress
	}
	return oci.Dial(address)
}

// origins says where the checkpoints come from.
func (g *guard) origins(ctx context.Context) (oci.Origin, error) {
	spec, err := g.c.Spec()
	if err != nil {
		return oci.Origin{}, err
	}
	b, err := json.Marshal(spec)
	if err != nil {
		return oci.Origin{}, err
	}
	f, err := g.features(ctx, g.criuPath)
	if err != nil {
		return oci.Origin{}, err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return oci.Origin{}, os.NewSyscallError("uname", err)
	}
	return oci.Origin{
		Namespace: g.c.Namespace(), ID: g.c.ID(), Spec: b, Kernel: unix.ByteSliceToString(uts.Release[:]),
		CRIUVersion: fmt.Sprintf("%d.%d.%d", f.Version/10000, f.Version/100%100, f.Version%100),
	}, nil
}

func (g *guard) noteImage(i status.Image) {
	g.mu.Lock()
	g.status.Images.Count++
	g.status.Images.Last, g.status.Images.LastError, g.status.Images.RetryAt = &i, "", nil
	g.mu.Unlock()
	g.writeStatus()
	g.log.WithFields(map[string]any{"image": i.Name, "bytes": i.Bytes, "changed_bytes": i.ChangedBytes, "total_ms": i.TotalMS}).Debug("published")
	g.publish(TopicPublished, map[string]any{"image": i.Name, "digest": i.Digest, "checkpoint": float64(i.Sequence), "bytes": float64(i.Bytes)})
}

// imageFailed reports the first of several failures in a row loudly.
func (g *guard) imageFailed(err error, again time.Duration) {
	at := time.Now().Add(again)
	g.mu.Lock()
	first := g.status.Images.LastError == ""
	g.status.Images.Failed++
	g.status.Images.LastError, g.status.Images.RetryAt = err.Error(), &at
	g.mu.Unlock()
	g.writeStatus()
	if !first {
		g.log.WithError(err).Debugf("publishing failed again, next attempt in %s", again)
		return
	}
	g.log.WithError(err).Warnf("publishing failed; the container is protected all the same, next attempt in %s", again)
	g.publish(TopicPublishFailed, map[string]any{"error": err.Error()})
}
