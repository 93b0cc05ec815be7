package oci

import (
	"context"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/protobuf"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// imageClient is the images service of the daemon. The one of containerd's
// client package would bring registries, unpacking and tracing into the shim.
type imageClient struct{ c imagesapi.ImagesClient }

var _ images.Store = imageClient{}

// Get implements images.Store.
func (i imageClient) Get(ctx context.Context, name string) (images.Image, error) {
	r, err := i.c.Get(ctx, &imagesapi.GetImageRequest{Name: name})
	if err != nil {
		return images.Image{}, errgrpc.ToNative(err)
	}
	return fromProto(r.Image), nil
}

// List implements images.Store.
func (i imageClient) List(ctx context.Context, filters ...string) ([]images.Image, error) {
	r, err := i.c.List(ctx, &imagesapi.ListImagesRequest{Filters: filters})
	if err != nil {
		return nil, errgrpc.ToNative(err)
	}
	var list []images.Image
	for _, p := range r.Images {
		list = append(list, fromProto(p))
	}
	return list, nil
}

// Create implements images.Store.
func (i imageClient) Create(ctx context.Context, image images.Image) (images.Image, error) {
	r, err := i.c.Create(ctx, &imagesapi.CreateImageRequest{Image: toProto(image)})
	if err != nil {
		return images.Image{}, errgrpc.ToNative(err)
	}
	return fromProto(r.Image), nil
}

// Update implements images.Store.
func (i imageClient) Update(ctx context.Context, image images.Image, paths ...string) (images.Image, error) {
	req := &imagesapi.UpdateImageRequest{Image: toProto(image)}
	if len(paths) > 0 {
		req.UpdateMask = &fieldmaskpb.FieldMask{Paths: paths}
	}
	r, err := i.c.Update(ctx, req)
	if err != nil {
		return images.Image{}, errgrpc.ToNative(err)
	}
	return fromProto(r.Image), nil
}

// Delete implements images.Store.
func (i imageClient) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	var o images.DeleteOptions
	for _, opt := range opts {
		if err := opt(ctx, &o); err != nil {
			return err
		}
	}
	req := &imagesapi.DeleteImageRequest{Name: name, Sync: o.Synchronous}
	if o.Target != nil {
		req.Target = descriptorToProto(*o.Target)
	}
	_, err := i.c.Delete(ctx, req)
	return errgrpc.ToNative(err)
}

func toProto(i images.Image) *imagesapi.Image {
	return &imagesapi.Image{
		Name: i.Name, Labels: i.Labels, Target: descriptorToProto(i.Target),
		CreatedAt: protobuf.ToTimestamp(i.CreatedAt), UpdatedAt: protobuf.ToTimestamp(i.UpdatedAt),
	}
}

func fromProto(p *imagesapi.Image) images.Image {
	t := p.GetTarget()
	return images.Image{
		Name: p.GetName(), Labels: p.GetLabels(),
		Target: ocispec.Descriptor{
			MediaType: t.GetMediaType(), Digest: digest.Digest(t.GetDigest()), Size: t.GetSize(), Annotations: t.GetAnnotations(),
		},
		CreatedAt: protobuf.FromTimestamp(p.GetCreatedAt()), UpdatedAt: protobuf.FromTimestamp(p.GetUpdatedAt()),
	}
}

func descriptorToProto(d ocispec.Descriptor) *types.Descriptor {
	return &types.Descriptor{MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size, Annotations: d.Annotations}
}
