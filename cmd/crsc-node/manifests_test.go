package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const deployDir = "../../deploy"

// objects reads all documents of a file.
func objects(t *testing.T, file string) []map[string]any {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	var out []map[string]any
	for d := yaml.NewDecoder(bytes.NewReader(b)); ; {
		var o map[string]any
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err, file)
		out = append(out, o)
	}
}

// TestManifestsAreCommandsOfOurs: what the DaemonSets run exists, with all its
// flags.
func TestManifestsAreCommandsOfOurs(t *testing.T) {
	files, err := filepath.Glob(deployDir + "/kustomize/*/daemonset.yaml")
	require.NoError(t, err)
	require.Len(t, files, 2)
	for _, file := range files {
		for _, o := range objects(t, file) {
			var d struct {
				Spec struct {
					Template struct {
						Spec struct {
							InitContainers, Containers []struct{ Args []string }
						}
					}
				}
			}
			b, err := yaml.Marshal(o)
			require.NoError(t, err)
			// The library's names are in lower case.
			require.NoError(t, yaml.Unmarshal(bytes.ReplaceAll(b, []byte("initContainers"), []byte("initcontainers")), &d))
			spec := d.Spec.Template.Spec
			require.Len(t, spec.InitContainers, 1, file)
			require.Len(t, spec.Containers, 1, file)
			for _, c := range append(spec.InitContainers, spec.Containers...) {
				cmd, rest, err := newRoot().Find(c.Args)
				require.NoError(t, err, file)
				require.NoError(t, cmd.ParseFlags(rest), file)
			}
		}
	}
}

// TestChartIsTheKustomizeBase: the rights are the same ones, and so are the flags
// of the installer.
func TestChartIsTheKustomizeBase(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(deployDir, name))
		require.NoError(t, err)
		return string(b)
	}
	rights := strings.ReplaceAll(read("helm/crsc/templates/rbac.yaml"), "{{ .Release.Namespace }}", "crsc-system")
	require.Equal(t, read("kustomize/common/rbac.yaml"), rights)
	flags := regexp.MustCompile(`--[a-z-]+=`)
	require.ElementsMatch(t, flags.FindAllString(read("kustomize/base/daemonset.yaml"), -1), flags.FindAllString(read("helm/crsc/templates/daemonset.yaml"), -1))
}

// TestKustomizationsAreComplete: each names files that exist, and all of its own.
func TestKustomizationsAreComplete(t *testing.T) {
	files, err := filepath.Glob(deployDir + "/kustomize/*/kustomization.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		dir := filepath.Dir(file)
		named := map[string]bool{"kustomization.yaml": true}
		for _, r := range objects(t, file)[0]["resources"].([]any) {
			require.FileExists(t, filepath.Join(dir, strings.TrimSuffix(r.(string), "/"), orItself(r.(string))), file)
			named[r.(string)] = true
		}
		list, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range list {
			require.True(t, named[e.Name()], "%s is not named in %s", e.Name(), file)
		}
	}
}

// orItself is the file that a directory of resources must have; a file needs
// none.
func orItself(resource string) string {
	if strings.HasSuffix(resource, ".yaml") {
		return ""
	}
	return "kustomization.yaml"
}
