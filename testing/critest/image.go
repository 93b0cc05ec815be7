package critest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// image is one of those that the suite names, and how it differs from the
// others. Names and users are those of cri-tools' pkg/validate/consts.go.
type image struct {
	name string // without the registry's host
	tag  string
	user string
	cmd  []string
}

// pauseImage is the sandbox's.
const pauseImage = "registry.k8s.io/pause:3.10"

func images() []image {
	const e2e, staging = "e2e-test-images/", "k8s-staging-cri-tools/"
	shell := []string{"sh"}
	out := []image{
		{"pause", "3.10", "65535:65535", []string{"/server/pause"}},
		{e2e + "busybox", "1.29-2", "", shell},
		{e2e + "nginx", "1.14-2", "", []string{"/server/nginx"}},
		{e2e + "httpd", "2.4.39-4", "", []string{"/server/httpd"}},
		{e2e + "nonewprivs", "1.3", "", []string{"/server/nnp"}},
		{staging + "hostnet-nginx-" + runtime.GOARCH, "latest", "", []string{"/server/nginx", "12003"}},
		{staging + "test-image-user-uid", "latest", "1002", shell},
		{staging + "test-image-user-username", "latest", "www-data", shell},
		{staging + "test-image-user-uid-group", "latest", "1003:users", shell},
		{staging + "test-image-user-username-group", "latest", "www-data:100", shell},
		{staging + "test-image-predefined-group", "latest", "1000", shell},
		{staging + "test-image-latest", "latest", "", shell},
		{staging + "test-image-tag", "test", "", shell},
		{staging + "test-image-tag", "all", "", shell},
		// Those of containerd's own suite.
		{"pause", "3.10.1", "65535:65535", []string{"/server/pause"}},
		{"containerd/busybox", "1.36", "", shell},
		{"containerd/volume-copy-up", "2.2", "", shell},
		{"containerd/volume-ownership", "2.1", "", shell},
		{"containerd/nginx", "1.27.0", "", []string{"/server/nginx"}},
		{e2e + "resource-consumer", "1.10", "", []string{"/server/pause"}},
	}
	for _, n := range []string{"1", "2", "3"} {
		out = append(out, image{staging + "test-image-" + n, "latest", "", shell},
			image{staging + "test-image-tags", n, "", shell})
	}
	return out
}

const passwd = `root:x:0:0:root:/root:/bin/sh
sys:x:3:3:sys:/dev:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
default-user:x:1000:1000::/:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
`

const groups = `root:x:0:
sys:x:3:
www-data:x:33:
users:x:100:
default-user:x:1000:
group-defined-in-image:x:50000:default-user
`

// layer builds the file system that all images share. The program is the
// binary of testing/critest/program.
func layer(program string) ([]byte, error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("%w: run testing/env/install deb busybox-static", err)
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("busybox --list: %w", err)
	}
	var buf bytes.Buffer
	t := layerWriter{w: tar.NewWriter(&buf)}
	for _, d := range []string{"bin", "dev", "etc", "proc", "root", "run", "server", "sys", "usr", "usr/bin", "var", "var/run"} {
		t.dir(d, 0o755)
	}
	t.dir("tmp", 0o1777)
	for _, file := range []string{"test_dir/test_file", "C:/weird_test_dir/weird_test_file", ":colon_prefixed/colon_prefixed_file"} {
		t.dir(filepath.Dir(file), 0o755)
		t.text(file, "test_content\n") // what containerd's tests look for in volumes
	}
	t.text("etc/passwd", passwd)
	t.text("etc/group", groups)
	t.copy("bin/busybox", busybox, 0o755)
	for name := range strings.FieldsSeq(string(applets)) {
		if name != "busybox" {
			t.link("bin/"+name, "busybox")
		}
	}
	t.copy("server/nginx", program, 0o755)
	for _, name := range []string{"server/httpd", "server/pause", "bin/ipcs", "bin/pgrep", "bin/stress"} {
		t.link(name, "/server/nginx")
	}
	// Setuid, for the specs about new privileges and mapped users.
	t.copy("server/nnp", program, 0o4755)
	t.copy("usr/bin/passwd", program, 0o4755)
	t.script("bin/bash", "#!/bin/sh\nexec sh \"$@\"\n")
	if t.err == nil {
		t.err = t.w.Close()
	}
	return buf.Bytes(), t.err
}

// volumes are those that an image declares.
func volumes(image string) map[string]struct{} {
	switch image {
	case "containerd/volume-copy-up":
		return map[string]struct{}{"/test_dir": {}, "C:/weird_test_dir": {}, "/:colon_prefixed": {}}
	case "containerd/volume-ownership":
		return map[string]struct{}{"/test_dir": {}}
	}
	return nil
}

// layerWriter writes entries until the first error.
type layerWriter struct {
	w   *tar.Writer
	err error
}

func (t *layerWriter) put(h tar.Header, data []byte) {
	if t.err != nil {
		return
	}
	h.Size, h.Format = int64(len(data)), tar.FormatPAX
	if t.err = t.w.WriteHeader(&h); t.err == nil {
		_, t.err = t.w.Write(data)
	}
}

func (t *layerWriter) dir(name string, mode int64) {
	h := tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}
	if name == "test_dir" {
		h.Uid, h.Gid = 65534, 65534 // as in volume-ownership
	}
	t.put(h, nil)
}

func (t *layerWriter) text(name, text string) {
	t.put(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, []byte(text))
}

func (t *layerWriter) script(name, text string) {
	t.put(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755}, []byte(text))
}

func (t *layerWriter) link(name, target string) {
	t.put(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

func (t *layerWriter) copy(name, from string, mode int64) {
	data, err := os.ReadFile(filepath.Clean(from))
	if t.err == nil {
		t.err = err
	}
	t.put(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, data)
}

// store holds the blobs of all images, and the manifest of each name and tag.
type store struct {
	blobs     map[digest.Digest][]byte
	manifests map[string]digest.Digest // by name:tag
}

// newStore makes images that share one layer.
func newStore(layer []byte, all []image) (*store, error) {
	s := &store{blobs: map[digest.Digest][]byte{}, manifests: map[string]digest.Digest{}}
	top := v1.Descriptor{MediaType: v1.MediaTypeImageLayer, Digest: s.add(layer), Size: int64(len(layer))}
	for _, i := range all {
		// Tags of test-image-tags are one image; all others differ.
		label := i.name
		if i.tag != "latest" && !strings.HasSuffix(i.name, "-tags") {
			label += ":" + i.tag
		}
		config, err := s.addJSON(v1.MediaTypeImageConfig, v1.Image{
			Platform: v1.Platform{Architecture: runtime.GOARCH, OS: "linux"},
			Config: v1.ImageConfig{
				User: i.user, Cmd: i.cmd, WorkingDir: "/", Env: []string{"PATH=/bin"},
				Labels: map[string]string{"crsc.io/critest": label}, Volumes: volumes(i.name),
			},
			RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{top.Digest}},
		})
		if err != nil {
			return nil, err
		}
		manifest, err := s.addJSON(v1.MediaTypeImageManifest, v1.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
			Config: config, Layers: []v1.Descriptor{top},
		})
		if err != nil {
			return nil, err
		}
		s.manifests[i.name+":"+i.tag] = manifest.Digest
	}
	return s, nil
}

func (s *store) add(blob []byte) digest.Digest {
	d := digest.FromBytes(blob)
	s.blobs[d] = blob
	return d
}

func (s *store) addJSON(mediaType string, v any) (v1.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: mediaType, Digest: s.add(data), Size: int64(len(data))}, nil
}
