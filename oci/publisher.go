package oci

import (
	"context"
	"errors"
	"fmt"
	"os"

	"filippo.io/age"
	"github.com/containerd/containerd/v2/pkg/namespaces"
)

const (
	// DefaultKeep is how many images of a container stay.
	DefaultKeep = 10
	// DefaultChain is the longest chain. The image at its end needs as many
	// layers with pages.
	DefaultChain = 16
)

// Options say what to publish where.
type Options struct {
	Store *Store
	// Dir is a directory of the publisher's own, for what it remembers between
	// publications. NewPublisher empties it, unless Resume is set. Its parent
	// must exist.
	Dir    string
	Resume bool
	// Origin of the checkpoints. Namespace, ID and Spec are required; what
	// containerd knows is filled in by the first publication.
	Origin Origin
	// Retention says which images stay.
	Retention Retention
	// Signer signs the images; nil: they are not signed.
	Signer *Signer
	// EncryptFor are the keys that layers are encrypted for; none: they are not
	// encrypted.
	EncryptFor []age.Recipient
	// Chain is the length of a chain from which on a new one begins; 0 is
	// DefaultChain, 1 makes every image a full one.
	Chain int
}

func (o *Options) defaultsAndValidate() error {
	if o.Store == nil || o.Dir == "" || o.Origin.Namespace == "" || o.Origin.ID == "" || len(o.Origin.Spec) == 0 {
		return errors.New("publisher: Store, Dir and Origin are required")
	}
	if o.Chain == 0 {
		o.Chain = DefaultChain
	}
	if o.Chain < 0 || o.Chain > maxSources {
		return fmt.Errorf("publisher: Chain %d is out of range", o.Chain)
	}
	return o.Retention.defaultsAndValidate()
}

// Publisher publishes the checkpoints of one container, one at a time: its
// methods may not be called concurrently.
type Publisher struct {
	o     Options
	known bool   // Origin is complete
	chain *chain // nil: the next image begins one
	files map[fileKey]layer
	n     uint64 // of tables that were written
}

// NewPublisher returns a publisher that begins a chain, or goes on where the
// one before it with this directory has ended, if Resume asks for that.
func NewPublisher(o Options) (*Publisher, error) {
	if err := o.defaultsAndValidate(); err != nil {
		return nil, err
	}
	p := &Publisher{o: o}
	if o.Resume && p.load() == nil {
		return p, nil
	}
	// What can't be gone on with costs a full image.
	if err := os.RemoveAll(o.Dir); err != nil {
		return nil, err
	}
	// Not its parents: where they are gone, so is the container.
	return &Publisher{o: o}, os.Mkdir(o.Dir, 0o700)
}

// Context returns ctx for calls of the store.
func (p *Publisher) Context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, p.o.Origin.Namespace)
}
