package oci

import (
	"maps"
	"runtime"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"
)

func TestCompatible(t *testing.T) {
	made := map[string]string{annotationArch: runtime.GOARCH, annotationCRIU: "4.2.1", annotationKernel: "6.18.3-gentoo", annotationRootfsSha: "sha256:a"}
	for _, c := range []struct {
		what     string
		here     Origin
		image    map[string]string // what is different
		says     string            // of the refusal
		warnings int
	}{
		{"the same", Origin{CRIUVersion: "4.2.1", Kernel: "6.18.3-gentoo", ImageDigest: "sha256:a"}, nil, "", 0},
		{"a newer kernel", Origin{CRIUVersion: "4.2.1", Kernel: "7.0.0", ImageDigest: "sha256:a"}, nil, "", 1},
		{"a patch", Origin{CRIUVersion: "4.2.0", Kernel: "6.18.1", ImageDigest: "sha256:a"}, nil, "", 1},
		{"an older kernel", Origin{CRIUVersion: "4.2.1", Kernel: "6.6.30", ImageDigest: "sha256:a"}, nil, "the older 6.6.30", 0},
		{"an older major kernel", Origin{CRIUVersion: "4.2.1", Kernel: "5.19.0", ImageDigest: "sha256:a"}, nil, "the older 5.19.0", 0},
		{"an older CRIU", Origin{CRIUVersion: "4.1.0", Kernel: "6.18.3", ImageDigest: "sha256:a"}, nil, "CRIU", 0},
		{"a newer CRIU", Origin{CRIUVersion: "4.10.0", Kernel: "6.18.3-gentoo", ImageDigest: "sha256:a"}, nil, "", 0},
		{"another image", Origin{CRIUVersion: "4.2.1", Kernel: "6.18.3", ImageDigest: "sha256:b"}, nil, "sha256:b", 0},
		{"an unknown image", Origin{CRIUVersion: "4.2.1", Kernel: "6.18.3-gentoo"}, nil, "", 1},
		{"another machine", Origin{CRIUVersion: "4.2.1", Kernel: "6.18.3", ImageDigest: "sha256:a"}, map[string]string{annotationArch: "s390x"}, "s390x", 0},
		{"no version", Origin{CRIUVersion: "4.2.1", Kernel: "6.18.3", ImageDigest: "sha256:a"}, map[string]string{annotationCRIU: ""}, "CRIU", 0},
		{"no kernel", Origin{CRIUVersion: "4.2.1", Kernel: "6.18.3", ImageDigest: "sha256:a"}, map[string]string{annotationKernel: "linux"}, "linux", 0},
	} {
		i := &Info{Annotations: maps.Clone(made)}
		maps.Copy(i.Annotations, c.image)
		warnings, err := i.Compatible(c.here)
		if c.says != "" {
			require.ErrorIs(t, err, ErrIncompatible, c.what)
			require.ErrorContains(t, err, c.says, c.what)
			continue
		}
		require.NoError(t, err, c.what)
		require.Len(t, warnings, c.warnings, c.what)
	}
}

// TestFind: a number is one image, latest is all of them, newest first.
func TestFind(t *testing.T) {
	d := newDaemon(t)
	const repository = "crsc.local/crsc/ns/app"
	target := func(s string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(s), Size: 1}
	}
	for tag, content := range map[string]string{"9": "nine", "10": "ten", "11": "eleven", "latest": "eleven", "v1": "other"} {
		_, err := d.Images.Create(d.ctx, images.Image{Name: repository + ":" + tag, Target: target(content)})
		require.NoError(t, err)
	}
	_, err := d.Images.Create(d.ctx, images.Image{Name: repository + "2:12", Target: target("twelve")})
	require.NoError(t, err)
	names := func(ref string) (out []string) {
		list, err := d.Find(d.ctx, ref)
		require.NoError(t, err)
		for _, i := range list {
			out = append(out, i.Name)
		}
		return out
	}
	require.Equal(t, []string{repository + ":latest", repository + ":10", repository + ":9"}, names(repository+":latest"))
	require.Equal(t, []string{repository + ":10"}, names(repository+":10"))
	require.Equal(t, []string{repository + ":9"}, names(repository+"@"+digest.FromString("nine").String()))
	for _, tag := range []string{":9", ":gone", ":latest"} {
		require.Equal(t, []string{repository + ":9"}, names(repository+tag+"@"+digest.FromString("nine").String()), "the digest decides")
	}
	_, err = d.Images.Create(d.ctx, images.Image{Name: "registry:5000/app:1", Target: target("far")})
	require.NoError(t, err)
	for _, ref := range []string{"registry:5000/app", "registry:5000/app:1", "registry:5000/app:2"} {
		require.Equal(t, []string{"registry:5000/app:1"}, names(ref+"@"+digest.FromString("far").String()))
	}
	require.NoError(t, d.Images.Delete(d.ctx, repository+":latest"))
	require.Equal(t, []string{repository + ":11", repository + ":10", repository + ":9"}, names(repository+":latest"))
	for _, none := range []string{repository + ":12", repository + "3:latest", repository + "@" + digest.FromString("twelve").String(), repository + ":12@" + digest.FromString("twelve").String()} {
		_, err := d.Find(d.ctx, none)
		require.ErrorIs(t, err, errdefs.ErrNotFound, none)
	}
}
