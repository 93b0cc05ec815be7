package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// accountDir is where Kubernetes puts the credentials of a pod's service account.
const accountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// errExists is returned for an object that exists already.
var errExists = errors.New("it exists already")

// client sends requests to the API server.
type client struct {
	base  string
	token string // file, which is renewed from time to time
	http  http.Client
}

// inCluster makes the client of a pod.
func inCluster() (*client, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, errors.New("KUBERNETES_SERVICE_HOST and _PORT are not set: this is no pod")
	}
	ca, err := os.ReadFile(filepath.Join(accountDir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	return newClient("https://"+net.JoinHostPort(host, port), filepath.Join(accountDir, "token"), ca)
}

func newClient(base, token string, ca []byte) (*client, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("no certificate in the API server's ca.crt")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, IdleConnTimeout: time.Minute}
	return &client{base: base, token: token, http: http.Client{Transport: transport, Timeout: 10 * time.Second}}, nil
}

// send sends an object and discards the answer.
func (c *client) send(ctx context.Context, method, kind, path string, object any) error {
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	token, err := os.ReadFile(c.token)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	r.Header.Set("Content-Type", kind)
	answer, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	switch {
	case err != nil:
		return err
	case answer.StatusCode == http.StatusConflict:
		return errExists
	case answer.StatusCode >= 300:
		return &refusal{code: answer.StatusCode, text: fmt.Sprintf("%s %s: %s: %s", method, path, answer.Status, message(text))}
	}
	return nil
}

// refusal is an answer other than success.
type refusal struct {
	code int
	text string
}

func (r *refusal) Error() string { return r.text }

// final says that the same request will not succeed later.
func (r *refusal) final() bool {
	return r.code >= 400 && r.code < 500 && r.code != http.StatusUnauthorized && r.code != http.StatusTooManyRequests
}

func message(answer []byte) string {
	var s struct{ Message string }
	if json.Unmarshal(answer, &s) != nil || s.Message == "" {
		return strings.TrimSpace(string(answer))
	}
	return s.Message
}

// label sets a label of a node; nil removes it.
func (c *client) label(ctx context.Context, node, name string, value *string) error {
	patch := map[string]any{"metadata": map[string]any{"labels": map[string]*string{name: value}}}
	return c.send(ctx, http.MethodPatch, "application/merge-patch+json", "/api/v1/nodes/"+url.PathEscape(node), patch)
}

func (c *client) create(ctx context.Context, e event) error {
	return c.send(ctx, http.MethodPost, "application/json", "/api/v1/namespaces/"+url.PathEscape(e.Metadata.Namespace)+"/events", e)
}
