package oci

import (
	"context"
	"errors"
	"fmt"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/content"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	leasesproxy "github.com/containerd/containerd/v2/core/leases/proxy"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/containerd/containerd/v2/pkg/protobuf"
)

// maxMessage is containerd's own limit for the messages of its API.
const maxMessage = 16 << 20

// Store is the part of containerd that images live in. Its calls expect the
// containerd namespace in their context.
type Store struct {
	Content    content.Store
	Images     images.Store
	Leases     leases.Manager
	Containers Containers
	Namespaces Namespaces

	conn *grpc.ClientConn
}

// Containers tells what containerd knows of a container. Get returns
// errdefs.ErrNotFound for one it does not know.
type Containers interface {
	Get(ctx context.Context, id string) (containers.Container, error)
}

// Namespaces tells which namespaces there are.
type Namespaces interface {
	List(ctx context.Context) ([]string, error)
}

// Dial returns the store of the daemon that listens on a unix socket. It
// connects when it is used first, and again after the daemon was restarted.
func Dial(address string) (*Store, error) {
	conn, err := grpc.NewClient("unix://"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("containerd at %s: %w", address, err)
	}
	return &Store{
		Content:    contentproxy.NewContentStore(conn),
		Images:     imageClient{imagesapi.NewImagesClient(conn)},
		Leases:     leasesproxy.NewLeaseManager(leasesapi.NewLeasesClient(conn)),
		Containers: containerClient{containersapi.NewContainersClient(conn)},
		Namespaces: namespaceClient{namespacesapi.NewNamespacesClient(conn)},
		conn:       conn,
	}, nil
}

// Close ends the connection.
func (s *Store) Close() error {
	if s == nil || s.conn == nil {
		return nil
	}
	return s.conn.Close()
}

// Complete adds to an origin what containerd knows: image, its digest, runtime
// and time of creation.
func (s *Store) Complete(ctx context.Context, o *Origin) error {
	c, err := s.Containers.Get(ctx, o.ID)
	if err != nil {
		return fmt.Errorf("container %s: %w", o.ID, err)
	}
	o.Image, o.Runtime, o.Created = c.Image, c.Runtime.Name, c.CreatedAt
	if c.Image == "" {
		return nil
	}
	image, err := s.Images.Get(ctx, c.Image)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil // removed since
	}
	if err != nil {
		return fmt.Errorf("image %s: %w", c.Image, err)
	}
	o.ImageDigest = image.Target.Digest.String()
	return nil
}

// containerClient is the containers service of the daemon.
type containerClient struct {
	c containersapi.ContainersClient
}

// Get implements Containers. Only what Complete uses is filled in.
func (c containerClient) Get(ctx context.Context, id string) (containers.Container, error) {
	r, err := c.c.Get(ctx, &containersapi.GetContainerRequest{ID: id})
	if err != nil {
		return containers.Container{}, errgrpc.ToNative(err)
	}
	return containers.Container{
		ID: r.Container.GetID(), Image: r.Container.GetImage(),
		Runtime:   containers.RuntimeInfo{Name: r.Container.GetRuntime().GetName()},
		CreatedAt: protobuf.FromTimestamp(r.Container.GetCreatedAt()),
	}, nil
}

// namespaceClient is the namespaces service of the daemon.
type namespaceClient struct {
	c namespacesapi.NamespacesClient
}

// List implements Namespaces.
func (n namespaceClient) List(ctx context.Context) ([]string, error) {
	r, err := n.c.List(ctx, &namespacesapi.ListNamespacesRequest{})
	if err != nil {
		return nil, errgrpc.ToNative(err)
	}
	var out []string
	for _, ns := range r.Namespaces {
		out = append(out, ns.GetName())
	}
	return out, nil
}
