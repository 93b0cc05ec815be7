// Command containerd-shim-crsc-v1 is the runtime io.containerd.crsc.v1:
// containerd's runc shim, which also brings crashed containers back.
package main

import (
	"context"

	"github.com/crsc-io/crsc/shim"
)

func main() { shim.Run(context.Background()) }
