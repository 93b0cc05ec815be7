package shim

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	runc "github.com/containerd/go-runc"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/crsc-io/crsc/shim/lifecycle"
	"github.com/crsc-io/crsc/shim/recovery"
	"github.com/crsc-io/crsc/shim/task"
)

// RuntimeName is the name under which containerd is asked for this shim.
const RuntimeName = "io.containerd.crsc.v1"

// Run serves, or does what the command line says. It returns when the shim
// ends, and exits the process on an error.
func Run(ctx context.Context) { run(ctx, recovery.NewFactory()) }

// guards decides how a new container is protected. It is where the task service
// meets recovery; a container without a guard is a plain runc container.
type guards interface {
	// NewGuard is a lifecycle.GuardFactory.
	NewGuard(ctx context.Context, c *lifecycle.Container) (lifecycle.Guard, error)
	// Close releases what is kept between containers. No guard is left.
	Close() error
}

func run(ctx context.Context, guards guards) {
	if is, err := recovery.RunCommand(ctx, os.Args, os.Stdin, os.Stdout); is {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	register(guards)
	shim.Run(ctx, Manager{})
}

// register adds the task service under the name that containerd's own shims
// use. pkg/shim adds the event publisher and the shutdown service.
func register(guards guards) {
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn: func(ic *plugin.InitContext) (any, error) {
			return newTaskService(ic, guards)
		},
	})
}

func newTaskService(ic *plugin.InitContext, guards guards) (any, error) {
	p, err := ic.GetByID(plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	sd, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	ns, err := namespaces.NamespaceRequired(ic.Context)
	if err != nil {
		return nil, err
	}
	// go-runc's children are reaped with all others.
	runc.Monitor = lifecycle.NewRuncMonitor()
	s, err := lifecycle.NewSupervisor(ic.Context, lifecycle.Config{
		Namespace: ns,
		Publisher: p.(shim.Publisher),
		Guards:    guards.NewGuard,
	})
	if err != nil {
		return nil, err
	}
	down := sd.(shutdown.Service)
	down.RegisterCallback(func(context.Context) error { return errors.Join(s.Close(), guards.Close()) })
	settling := settleMemory()
	down.RegisterCallback(func(context.Context) error { settling(); return nil })
	if address, err := shim.ReadAddress("address"); err == nil {
		down.RegisterCallback(func(context.Context) error { return shim.RemoveSocket(address) })
	}
	return task.New(s, down.Shutdown), nil
}
