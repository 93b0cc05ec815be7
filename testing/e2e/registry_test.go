package e2e

import (
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/oci"
)

// TestPushedImage: an image goes through a registry and nerdctl like any other,
// with its signature, and a container begins with what comes back.
func TestPushedImage(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	c := redis(t, noTriggers("publish", "true"))
	c.removeImages()
	require.Equal(t, "OK", c.dial().do("SET", "kept", "safe"))
	c.exec("true")
	image := c.awaitImages(1).Images.Last
	name := strings.TrimPrefix(server.URL, "http://") + "/backup/" + c.id + ":7"
	c.ctr("images", "tag", image.Name, name)
	c.ctr("images", "push", "--plain-http", name)
	for _, n := range []string{name, image.Name, oci.Name(c.e.Namespace, c.id, oci.Latest)} {
		c.ctr("images", "rm", "--sync", n)
	}
	require.NoError(t, c.e.DeleteContainer(t.Context(), c.id))
	require.NotContains(t, c.ctr("content", "ls"), image.Digest)
	c.ctr("content", "fetch", "--plain-http", name)
	t.Cleanup(func() { c.ctr("images", "rm", name) })

	n := newContainer(t).run("redis", protected("restore-from", name), nil)
	require.Equal(t, "safe", n.dial().do("GET", "kept"))
	require.Equal(t, name+"@"+image.Digest, n.status().RestoredFrom)

	out, err := c.e.Command(t.Context(), filepath.Join(c.e.ToolsDir, "nerdctl"), "--address", c.e.Address, "--namespace", c.e.Namespace,
		"image", "inspect", "--mode", "native", name).Output()
	require.NoError(t, err, string(out))
	var inspected []struct {
		Manifest struct{ Annotations map[string]string }
	}
	require.NoError(t, json.Unmarshal(out, &inspected), string(out))
	require.Len(t, inspected, 1)
	require.Equal(t, c.id, inspected[0].Manifest.Annotations["org.criu.checkpoint.container.name"])
}
