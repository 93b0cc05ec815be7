// Command node-image writes the image of the DaemonSet in this folder as an OCI
// archive.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/k8s/nodeimage"
)

func main() {
	out := flag.String("out", "out/dist/crsc-node.tar", "file for the archive")
	flag.Parse()
	if err := write(*out); err != nil {
		fmt.Fprintln(os.Stderr, "node-image:", err)
		os.Exit(1)
	}
}

func write(out string) error {
	e, err := env.Locate("")
	if err != nil {
		return err
	}
	file, err := nodeimage.Image(e.Root, e.ToolsDir).Archive()
	if err != nil {
		return err
	}
	from, err := os.Open(file)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	to, err := os.Create(out)
	if err != nil {
		return err
	}
	defer to.Close()
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return to.Close()
}
