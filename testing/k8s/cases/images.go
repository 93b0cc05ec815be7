package cases

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/crsc-io/crsc/testing/env/ociimage"
	"github.com/crsc-io/crsc/testing/k8s/cluster"
)

// Images that the cases use.
const (
	redisImage   = "localhost/crsc-test/redis:latest"
	busyboxImage = "localhost/crsc-test/busybox:latest"
	probedImage  = "localhost/crsc-test/probed:latest"
)

// importImages builds the images, but for the installer's, and gives them to the node.
func importImages(ctx context.Context, c *cluster.Cluster) error {
	for _, name := range []string{"redis", "busybox"} {
		if _, err := c.Import(ctx, name); err != nil {
			return err
		}
	}
	probed := filepath.Join(c.Root, "bin/testing/k8s-probed")
	if err := goBuild(ctx, c, probed, "./testing/k8s/probed"); err != nil {
		return err
	}
	return c.ImportImage(ctx, ociimage.Image{
		Name: "probed", Ref: probedImage, Entrypoint: []string{"/probed"}, Programs: map[string]string{"/probed": probed},
	})
}

func goBuild(ctx context.Context, c *cluster.Cluster, out, pkg string) error {
	cmd := c.Command(ctx, "go", "build", "-trimpath", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w: %s", pkg, err, b)
	}
	return nil
}
