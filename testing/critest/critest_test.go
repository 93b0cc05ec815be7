package critest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const report = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="6"><testsuite name="CRI validation">
  <testcase name="[BeforeSuite]" status="passed"></testcase>
  <testcase name="[It] pod starts" status="passed"></testcase>
  <testcase name="[It] pod stops" status="failed"><failure message="it did not" type="failed">long</failure></testcase>
  <testcase name="[It] apparmor" status="skipped"><skipped message="absent"></skipped></testcase>
  <testcase name="[It] later" status="pending"></testcase>
  <testcase name="[It] slow" status="timedout"><failure message="30s" type="timedout"></failure></testcase>
</testsuite></testsuites>`

func TestParseReport(t *testing.T) {
	specs, err := parseReport(strings.NewReader(report))
	require.NoError(t, err)
	assert.Equal(t, []spec{
		{"pod starts", "passed", ""}, {"pod stops", "failed", "it did not"},
		{"apparmor", "skipped", ""}, {"later", "skipped", ""}, {"slow", "failed", "timedout: 30s"},
	}, specs)
	got := tally(specs)
	assert.Equal(t, &Tally{Passed: 1, Failed: 2, Skipped: 2, Failures: []string{"pod stops", "slow"}}, got)
}

func TestBrokenReportsAreErrors(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "no spec": "<testsuites></testsuites>",
		"setup failed": `<testsuites><testsuite><testcase name="[BeforeSuite]" status="failed"><failure message="no socket"/></testcase></testsuite></testsuites>`,
	} {
		_, err := parseReport(strings.NewReader(text))
		assert.Error(t, err, name)
	}
}

func TestCompareNamesEveryDifference(t *testing.T) {
	runc := []spec{{"a", "passed", ""}, {"b", "failed", "x"}, {"c", "passed", ""}, {"same", "failed", "y"}, {"twice", "passed", ""}, {"twice", "passed", ""}}
	other := []spec{{"a", "failed", "why"}, {"b", "passed", ""}, {"same", "failed", "z"}, {"new", "passed", ""}, {"twice", "passed", ""}, {"twice", "skipped", ""}}
	assert.Equal(t, []Difference{
		{"a", "crsc", "passed", "failed", "why"},
		{"b", "crsc", "failed", "passed", "with runc: x"},
		{"c", "crsc", "passed", "absent", ""},
		{"new", "crsc", "absent", "passed", ""},
		{"twice (2)", "crsc", "passed", "skipped", ""},
	}, compare("crsc", runc, other))
	assert.Empty(t, compare("crsc", runc, runc))
}

func TestUnknownHandlerIsRefused(t *testing.T) {
	_, err := Run(context.Background(), Options{Handlers: []string{"runc"}})
	assert.ErrorContains(t, err, `"runc"`)
}

// TestRegistryServesWhatTheSuiteNames pulls by tag and by digest, as containerd
// does.
func TestRegistryServesWhatTheSuiteNames(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(program, []byte("#!"), 0o755))
	data, err := layer(program)
	require.NoError(t, err)
	again, err := layer(program)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(data, again), "reproducible")
	s, err := newStore(data, images())
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go s.serve(l)
	get := func(path string) (int, string, http.Header) {
		r, err := http.Get("http://" + l.Addr().String() + "/v2/" + path)
		require.NoError(t, err)
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		return r.StatusCode, string(body), r.Header
	}
	digests := map[string]string{}
	for _, i := range images() {
		status, body, h := get(i.name + "/manifests/" + i.tag)
		require.Equal(t, 200, status, i.name)
		d := h.Get("Docker-Content-Digest")
		assert.Equal(t, fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(body))), d)
		_, same, _ := get(i.name + "/manifests/" + d)
		assert.Equal(t, body, same)
		digests[i.name+":"+i.tag] = d
	}
	const staging = "k8s-staging-cri-tools/"
	assert.Equal(t, digests[staging+"test-image-tags:1"], digests[staging+"test-image-tags:2"])
	assert.NotEqual(t, digests[staging+"test-image-1:latest"], digests[staging+"test-image-2:latest"])
	for _, path := range []string{"nothing/manifests/latest", "pause/manifests/1", "pause/blobs/sha256:00", "x"} {
		status, _, _ := get(path)
		assert.Equal(t, 404, status, path)
	}
}

func TestParseGoTests(t *testing.T) {
	const text = "=== RUN   TestA\n    a_test.go:1: --- PASS: no\n--- PASS: TestA (0.01s)\n--- FAIL: TestB (1.00s)\n    --- SKIP: TestB/x (0.00s)\nFAIL\nlog of the daemon\n"
	specs, err := parseGoTests(strings.NewReader(text))
	require.NoError(t, err)
	assert.Equal(t, []spec{{Name: "TestA", Result: "passed"}, {Name: "TestB", Result: "failed"}, {Name: "TestB/x", Result: "skipped"}}, specs)
	for name, broken := range map[string]string{"nothing": "", "no test": "PASS\n", "a panic": "--- PASS: TestA (0.01s)\npanic: test timed out\n"} {
		_, err := parseGoTests(strings.NewReader(broken))
		assert.ErrorContains(t, err, "ended early", name)
	}
}
