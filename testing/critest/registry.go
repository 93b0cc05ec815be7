package critest

import (
	"bytes"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// serve answers pulls on the listener, as the OCI distribution specification
// wants it (GET and HEAD of manifests and blobs), until the listener is closed.
func (s *store) serve(l net.Listener) {
	server := &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	_ = server.Serve(l) // ends with the listener
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	if path == "" {
		return // the version check
	}
	if name, ref, ok := strings.Cut(path, "/manifests/"); ok {
		d, known := s.manifests[name+":"+ref]
		if !known {
			d = digest.Digest(ref)
		}
		s.send(w, r, d, v1.MediaTypeImageManifest)
		return
	}
	if _, ref, ok := strings.Cut(path, "/blobs/"); ok {
		s.send(w, r, digest.Digest(ref), "application/octet-stream")
		return
	}
	http.NotFound(w, r)
}

func (s *store) send(w http.ResponseWriter, r *http.Request, d digest.Digest, mediaType string) {
	blob, ok := s.blobs[d]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", d.String())
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
}
