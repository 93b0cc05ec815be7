package critest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// impersonate serves a registry of the public internet to the programs of this
// isolation that trust the certificate which is written to the file.
func (s *store) impersonate(file, host string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile("/etc/hosts", []byte("127.0.0.1 localhost "+host+"\n"), 0o644); err != nil {
		return err
	}
	l, err := tls.Listen("tcp", "127.0.0.1:443", &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	})
	if err != nil {
		return err
	}
	go s.serve(l) // until the program ends
	return nil
}

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
