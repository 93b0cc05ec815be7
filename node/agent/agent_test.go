package agent

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/control"
	"github.com/crsc-io/crsc/status"
)

// apiServer keeps what it is sent, and refuses what exists already.
type apiServer struct {
	mu     sync.Mutex // guards everything below
	events map[string]event
	labels map[string]string
	posts  int
	broken int // status code that every request is answered with, if not 0
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	switch {
	case r.Header.Get("Authorization") != "Bearer secret":
		w.WriteHeader(http.StatusUnauthorized)
	case s.broken != 0:
		w.WriteHeader(s.broken)
		_, _ = io.WriteString(w, `{"message": "namespace t is being terminated"}`)
	case r.Method == http.MethodPatch && r.URL.Path == "/api/v1/nodes/n1":
		var p struct {
			Metadata struct{ Labels map[string]*string }
		}
		_ = json.Unmarshal(body, &p)
		for k, v := range p.Metadata.Labels {
			delete(s.labels, k)
			if v != nil {
				s.labels[k] = *v
			}
		}
	case r.Method == http.MethodPost:
		var e event
		_ = json.Unmarshal(body, &e)
		s.posts++
		if _, ok := s.events[e.Metadata.Name]; ok {
			w.WriteHeader(http.StatusConflict)
			return
		}
		s.events[e.Metadata.Name] = e
		w.WriteHeader(http.StatusCreated)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *apiServer) reasons() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[string]int{}
	for _, e := range s.events {
		n[e.Reason]++
	}
	return n
}

func serve(t *testing.T) (*apiServer, *client) {
	s := &apiServer{events: map[string]event{}, labels: map[string]string{}}
	server := httptest.NewTLSServer(s)
	t.Cleanup(server.Close)
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("secret\n"), 0o600))
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	c, err := newClient(server.URL, token, ca)
	require.NoError(t, err)
	return s, c
}

func write(t *testing.T, dir string, s *status.Status) {
	t.Helper()
	dir = filepath.Join(dir, "k8s.io", s.ID)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, s.Write(dir))
}

func example(id string) *status.Status {
	return &status.Status{
		ID: id, Phase: "running", Updated: time.Now(),
		Pod: &status.Pod{Namespace: "t", Name: "p", UID: "u", Container: "app"},
	}
}

func newFollower(c *client, dir string) *follower {
	o := Options{Node: "n1", StateDir: dir, Log: func(string, ...any) {}}
	return &follower{Options: o, client: c, since: time.Now().Add(-news), sent: map[string]time.Time{}}
}

func TestEachThingIsToldOnce(t *testing.T) {
	server, c := serve(t)
	dir := t.TempDir()
	s := example("a")
	s.Protected = true
	s.Recoveries = []status.Recovery{
		{Time: time.Now().Add(-time.Hour), Cause: "signal 9"},
		{Time: time.Now(), Cause: "signal 9", TotalMS: 80.6, Checkpoint: 3, Records: 10, Connections: 5},
	}
	write(t, dir, s)
	write(t, dir, &status.Status{ID: "no pod", Protected: true})
	f := newFollower(c, dir)
	f.look(context.Background())
	f.look(context.Background())
	assert.Equal(t, map[string]int{"Protected": 1, "Recovered": 1}, server.reasons(), "an hour old is old news")
	assert.Equal(t, 2, server.posts)

	newFollower(c, dir).look(context.Background())
	assert.Equal(t, map[string]int{"Protected": 1, "Recovered": 1}, server.reasons(), "a new agent tells nothing again")

	s.Protected, s.Reason = false, "unprotected: a reason"
	s.NotResumed = "the template has changed"
	s.Unproxied = &status.Unproxied{Count: 1, Connections: []string{"10.0.0.2:40000 10.0.0.9:5432"}}
	write(t, dir, s)
	f.look(context.Background())
	assert.Equal(t, map[string]int{"Protected": 1, "Recovered": 1, "Unprotected": 1, "NotResumed": 1, "Unproxied": 1}, server.reasons())
	for _, e := range server.events {
		assert.Equal(t, reference{"v1", "Pod", "t", "p", "u", "spec.containers{app}"}, e.InvolvedObject)
		if e.Reason == "Recovered" {
			assert.Equal(t, "container app: signal 9 was hidden in 81 ms: restored checkpoint 3, replayed 10 records, kept 5 connections", e.Message)
		}
	}
}

func TestWhatCouldNotBeSentIsSentLater(t *testing.T) {
	server, c := serve(t)
	dir := t.TempDir()
	s := example("a")
	s.Protected = true
	write(t, dir, s)
	f := newFollower(c, dir)
	server.broken = http.StatusServiceUnavailable
	f.look(context.Background())
	assert.Empty(t, server.reasons())
	server.broken = 0
	f.look(context.Background())
	assert.Equal(t, map[string]int{"Protected": 1}, server.reasons())
}

func TestWhatWillNeverBeTakenIsNotSentAgain(t *testing.T) {
	server, c := serve(t)
	dir := t.TempDir()
	s := example("a")
	s.Protected = true
	write(t, dir, s)
	f := newFollower(c, dir)
	server.broken = http.StatusForbidden
	f.look(context.Background())
	server.broken = 0
	f.look(context.Background())
	assert.Zero(t, server.posts)
}

func TestTheNodeIsLabelledAndTheLabelTakenOff(t *testing.T) {
	server, c := serve(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- run(ctx, c, Options{Node: "n1", StateDir: t.TempDir(), Log: t.Logf})
	}()
	require.Eventually(t, func() bool {
		server.mu.Lock()
		defer server.mu.Unlock()
		return server.labels[Label] == "true"
	}, time.Minute, 10*time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	require.NoError(t, c.label(context.Background(), "n1", Label, nil))
	assert.NotContains(t, server.labels, Label)
}

func TestNamesAndMessagesFitTheAPI(t *testing.T) {
	s := example("a")
	s.Pod.Name = strings.Repeat("x", 199) + "-" + strings.Repeat("y", 53)
	s.Reason = strings.Repeat("ü", maxMessage)
	e := eventsOf(s, "n1", time.Now())[0]
	assert.LessOrEqual(t, len(e.Metadata.Name), 253)
	assert.NotContains(t, e.Metadata.Name, "-.")
	assert.LessOrEqual(t, len(e.Message), maxMessage)
	assert.True(t, strings.HasSuffix(e.Message, "ü..."), "cut between characters")
}

// shim answers for a container whose status file cannot be written any more.
type shim struct {
	control.Handler
	now *status.Status
}

func (s shim) Status(context.Context) (*status.Status, error) { return s.now, nil }

func TestTheShimKnowsBetterThanItsFile(t *testing.T) {
	server, c := serve(t)
	dir := t.TempDir()
	s := example("a")
	s.Namespace = "k8s.io"
	write(t, dir, s)
	now := *s
	now.Protected = true
	live, err := control.Serve(filepath.Join(dir, "k8s.io", "a"), shim{now: &now})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, live.Close()) })
	newFollower(c, dir).look(context.Background())
	assert.Equal(t, map[string]int{"Protected": 1}, server.reasons())

	// Nor does it need the file; one that nobody makes up for is told once.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "k8s.io", "a", status.FileName), []byte("{"), 0o600))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "k8s.io", "b"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "k8s.io", "b", status.FileName), nil, 0o600))
	now.Pod.Name = "another"
	f, told := newFollower(c, dir), []string{}
	f.Log = func(format string, args ...any) { told = append(told, fmt.Sprintf(format, args...)) }
	f.look(context.Background())
	f.look(context.Background())
	assert.Equal(t, map[string]int{"Protected": 2}, server.reasons())
	require.Len(t, told, 1)
	assert.Contains(t, told[0], "b/"+status.FileName)
}
