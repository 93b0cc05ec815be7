package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxLayers of an image. A checkpoint has some dozens of files at most.
const maxLayers = 4096

// Info is what an image says about itself.
type Info struct {
	Namespace, Container string
	Sequence             uint64
	// Chain is the place in the chain; 0 holds all memory.
	Chain int
	// Annotations of the manifest.
	Annotations map[string]string
	// Signer is the ID of the trusted key that has signed the image; empty: none,
	// and that is allowed.
	Signer string
	// Encrypted: some of its layers are.
	Encrypted bool
	// Config and Spec are config.dump and spec.dump. The spec of a container to
	// be restored comes from elsewhere: an image is not trusted that far.
	Config, Spec []byte
}

// parts are an image's layers by role.
type parts struct {
	state   ocispec.Descriptor
	pages   *ocispec.Descriptor
	sources map[string]ocispec.Descriptor // by digest
	files   map[string]ocispec.Descriptor // by path
}

// Inspect reads the manifest of an image. Only the manifest is checked, with its
// signature.
//
// Errors: ErrNotCheckpoint, ErrUnsupportedVersion, ErrCorrupt, ErrTooLarge,
// ErrIncomplete, ErrUntrusted.
func Inspect(ctx context.Context, p content.Provider, target ocispec.Descriptor, trust *Trust) (*Info, error) {
	info, _, err := readManifest(ctx, p, target, trust)
	return info, err
}

func readManifest(ctx context.Context, p content.Provider, target ocispec.Descriptor, trust *Trust) (*Info, *parts, error) {
	if target.MediaType != ocispec.MediaTypeImageManifest {
		return nil, nil, fmt.Errorf("%w: it is a %.100q", ErrNotCheckpoint, target.MediaType)
	}
	b, err := readBlob(ctx, p, target, maxManifest)
	if err != nil {
		return nil, nil, err
	}
	return parseManifest(b, trust)
}

func parseManifest(b []byte, trust *Trust) (*Info, *parts, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, nil, damaged("manifest", "%v", err)
	}
	version, ok := m.Annotations[AnnotationVersion]
	if !ok {
		return nil, nil, ErrNotCheckpoint
	}
	if version != formatVersion {
		return nil, nil, fmt.Errorf("%w: %.20q", ErrUnsupportedVersion, version)
	}
	info := &Info{
		Namespace: m.Annotations[AnnotationNamespace], Container: m.Annotations[AnnotationContainer], Annotations: m.Annotations,
	}
	var err error
	if info.Sequence, err = strconv.ParseUint(m.Annotations[AnnotationSequence], 10, 64); err != nil {
		return nil, nil, damaged("manifest", "%s: %v", AnnotationSequence, err)
	}
	if info.Chain, err = strconv.Atoi(m.Annotations[AnnotationChain]); err != nil || info.Chain < 0 {
		return nil, nil, damaged("manifest", "%s: %.20q", AnnotationChain, m.Annotations[AnnotationChain])
	}
	if info.Signer, err = trust.check(b, m); err != nil {
		return nil, nil, err
	}
	for _, l := range m.Layers {
		info.Encrypted = info.Encrypted || strings.HasSuffix(l.MediaType, suffixEncrypted)
	}
	parts, err := sortLayers(m.Layers)
	if err == nil && (parts.pages == nil) != (info.Chain == 0) {
		err = damaged("manifest", "the place in the chain does not fit the layers")
	}
	return info, parts, err
}

// sortLayers checks that there is one layer of each kind that there has to be.
func sortLayers(layers []ocispec.Descriptor) (*parts, error) {
	if len(layers) > maxLayers {
		return nil, fmt.Errorf("%w: %d layers", ErrTooLarge, len(layers))
	}
	p := &parts{sources: map[string]ocispec.Descriptor{}, files: map[string]ocispec.Descriptor{}}
	filePath := regexp.MustCompile(`^(layer|(scratch|volume)-[0-9]{1,4})/pack\.[0-9a-f]{8}$`)
	haveState := false
	for i, l := range layers {
		path, role := l.Annotations[annotationPath], l.Annotations[annotationRole]
		mediaType := strings.TrimSuffix(l.MediaType, suffixEncrypted)
		switch {
		case role == roleState && mediaType == mediaTypeState && !haveState:
			p.state, haveState = l, true
		case role == rolePages && mediaType == mediaTypePages && p.pages == nil:
			p.pages = &l
		case role == roleSource && (mediaType == mediaTypePages || mediaType == mediaTypeState) && len(p.sources) < maxSources:
			p.sources[l.Digest.String()] = l
		case role == roleFile && mediaType == mediaTypeFile && filePath.MatchString(path) && p.files[path].Digest == "":
			p.files[path] = l
		default:
			return nil, damaged("manifest", "layer %d has the role %.40q, the type %.100q and the path %.100q", i, role, l.MediaType, path)
		}
	}
	if !haveState {
		return nil, damaged("manifest", "it has no layer with the role %q", roleState)
	}
	return p, nil
}
