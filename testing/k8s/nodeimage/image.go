package nodeimage

import (
	"path/filepath"

	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// Ref is the name that the manifests have for it.
const Ref = "ghcr.io/crsc-io/crsc-node:latest"

// Image is made of the programs built in a clone and of the tools of
// testing/env/install.
func Image(root, tools string) ociimage.Image {
	const lib = "/usr/local/lib/crsc/"
	return ociimage.Image{
		Name: "crsc-node", Ref: Ref, Entrypoint: []string{"/usr/local/bin/crsc-node"},
		Programs: map[string]string{
			"/usr/local/bin/crsc-node":      filepath.Join(root, "bin/crsc-node"),
			lib + "containerd-shim-crsc-v1": filepath.Join(root, "bin/containerd-shim-crsc-v1"),
			lib + "crsc":                    filepath.Join(root, "bin/crsc"),
			lib + "criu":                    filepath.Join(tools, "criu-static"),
		},
	}
}
