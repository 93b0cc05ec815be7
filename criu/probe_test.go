package criu_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/criu/internal/criutest"
)

func TestProbe(t *testing.T) {
	f, err := criu.Probe(t.Context(), criu.ProbeOptions{Path: criutest.Tool(t, "criu")})
	if err != nil {
		t.Fatal(err)
	}
	if f.Version < criu.MinVersion || len(f.Missing) != 0 || !strings.HasPrefix(f.String(), "CRIU 4.") {
		t.Errorf("%+v: %s", f, f)
	}
	t.Log(f)
}

func TestProbeWithoutCRIU(t *testing.T) {
	if _, err := criu.Probe(t.Context(), criu.ProbeOptions{Path: filepath.Join(t.TempDir(), "criu")}); !errors.Is(err, criu.ErrNotFound) {
		t.Errorf("error is %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := criu.Probe(t.Context(), criu.ProbeOptions{}); !errors.Is(err, criu.ErrNotFound) {
		t.Errorf("error is %v", err)
	}
	other := filepath.Join(t.TempDir(), "criu")
	if err := os.WriteFile(other, []byte("#!/bin/sh\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if f, err := criu.Probe(t.Context(), criu.ProbeOptions{Path: other}); err == nil || f.Path != other {
		t.Errorf("a program that is not CRIU: %+v %v", f, err)
	}
}
