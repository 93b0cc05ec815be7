package imagebench

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	containerd "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/crsc-io/crsc/oci"
	"github.com/crsc-io/crsc/testing/bench"
)

// image is one in the content store.
type image struct {
	name    string
	info    *oci.Info
	bytes   int64         // of blobs that no image before has
	changed int64         // bytes of pages that are not in the image before
	fetch   time.Duration // of all of it
	opens   bool          // checkpointctl shows it, its processes, sockets and files
	memory  bool          // also what it reads from memory
}

// survey looks at images, oldest first.
type survey struct {
	ctx   context.Context
	rig   *bench.Rig
	store *oci.Store
	trust *oci.Trust
	dir   string
	blobs map[digest.Digest]bool
	pages map[[32]byte]bool // of the image before
}

func inspect(ctx context.Context, rig *bench.Rig, id string) (all []image, err error) {
	store, err := oci.Dial(rig.Env.Address)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	s := &survey{ctx: namespaces.WithNamespace(ctx, rig.Env.Namespace), rig: rig, store: store, blobs: map[digest.Digest]bool{}}
	// What the shim on this node has signed.
	own, err := oci.OpenSigner(filepath.Join(rig.Env.StateDir, ".keys", "signing.pem"))
	if err != nil {
		return nil, err
	}
	if s.trust, err = oci.NewTrust(oci.TrustOptions{Own: own}); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp(rig.Env.Dir, "images-"); err != nil {
		return nil, err
	}
	list, err := store.Images.List(s.ctx)
	if err != nil {
		return nil, err
	}
	prefix := oci.Name(rig.Env.Namespace, id, "")
	list = slices.DeleteFunc(list, func(i containerd.Image) bool {
		return !strings.HasPrefix(i.Name, prefix) || strings.HasSuffix(i.Name, ":"+oci.Latest)
	})
	slices.SortFunc(list, func(a, b containerd.Image) int { return a.CreatedAt.Compare(b.CreatedAt) })
	for _, i := range list {
		one, err := s.look(i)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", i.Name, err)
		}
		all = append(all, *one)
	}
	return all, nil
}

func (s *survey) look(i containerd.Image) (*image, error) {
	out := &image{name: i.Name}
	b, err := content.ReadBlob(s.ctx, s.store.Content, i.Target)
	if err != nil {
		return nil, err
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	for _, d := range append(m.Layers, m.Config, i.Target) {
		if !s.blobs[d.Digest] {
			s.blobs[d.Digest] = true
			out.bytes += d.Size
		}
	}
	dir := filepath.Join(s.dir, "checkpoint")
	begun := time.Now()
	if out.info, err = oci.Fetch(s.ctx, s.store.Content, i.Target, dir, oci.FetchOptions{Trust: s.trust}); err != nil {
		return nil, err
	}
	out.fetch = time.Since(begun)
	if err := s.compare(out, dir); err != nil {
		return nil, err
	}
	if err := s.open(out); err != nil {
		return nil, err
	}
	return out, os.RemoveAll(dir)
}

// compare counts the pages that the image before does not have.
func (s *survey) compare(out *image, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "images", "pages-*.img"))
	if err != nil {
		return err
	}
	now := map[[32]byte]bool{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for page := range slices.Chunk(b, 4096) {
			sum := sha256.Sum256(page)
			if !s.pages[sum] && !now[sum] {
				out.changed += int64(len(page))
			}
			now[sum] = true
		}
	}
	s.pages = now
	return nil
}

// open exports the image and lets checkpointctl open its standard layer.
func (s *survey) open(out *image) error {
	file := filepath.Join(s.dir, "export.tar")
	if _, err := s.rig.Env.Ctr(s.ctx, "images", "export", "--local", file, out.name); err != nil {
		return err
	}
	layer := filepath.Join(s.dir, "layer.tar.zst")
	if err := standardLayer(file, layer); err != nil {
		return err
	}
	tool := func(args ...string) (string, bool) {
		b, err := s.rig.Env.Command(s.ctx, "checkpointctl", append(args, layer)...).CombinedOutput()
		return string(b), err == nil
	}
	_, shows := tool("show")
	tree, inspects := tool("inspect", "--ps-tree", "--sockets", "--files")
	out.opens = shows && inspects && strings.Contains(tree, "redis-server") && strings.Contains(tree, "LISTEN") && strings.Contains(tree, "[cwd]")
	command, ok := tool("inspect", "--ps-tree-cmd")
	out.memory = ok && strings.Contains(command, "redis-server *:6379")
	return s.ctx.Err()
}

// standardLayer takes the layer with the role "checkpoint" out of an export.
func standardLayer(export, layer string) error {
	blobs, err := readExport(export)
	if err != nil {
		return err
	}
	for _, b := range blobs {
		var m ocispec.Manifest
		if json.Unmarshal(b, &m) != nil || m.MediaType != ocispec.MediaTypeImageManifest {
			continue
		}
		for _, l := range m.Layers {
			if l.Annotations["crsc.io/role"] == "checkpoint" {
				return os.WriteFile(layer, blobs["blobs/sha256/"+l.Digest.Encoded()], 0o600)
			}
		}
	}
	return errors.New("the export has no layer of a checkpoint")
}

func readExport(file string) (map[string][]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all := map[string][]byte{}
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if all[h.Name], err = io.ReadAll(tr); err != nil {
			return nil, err
		}
	}
}
