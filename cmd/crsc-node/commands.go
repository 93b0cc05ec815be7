package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/node"
	"github.com/crsc-io/crsc/node/agent"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use: "crsc-node", Short: "Put crsc onto a Kubernetes node, and tell Kubernetes what happens there",
		SilenceUsage: true, SilenceErrors: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(newInstall(), newUninstall(), newAgent(), newRetire())
	return root
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// nodeFlags are the flags that say where things are on the node.
func nodeFlags(cmd *cobra.Command) *node.Options {
	o := &node.Options{Log: say}
	f := cmd.Flags()
	f.StringVar(&o.Host, "host", "/", "where the node's root directory is seen")
	f.StringVar(&o.Prefix, "prefix", "/opt/crsc", "directory on the node for the programs")
	f.StringVar(&o.Programs, "programs", "", "directory on the node with the programs, where a package has put them: they are neither copied nor removed")
	f.StringVar((*string)(&o.Distribution), "distribution", string(node.DistributionAuto), "who has set up containerd, for the defaults of the paths: auto, containerd, k3s, rke2, k0s or microk8s")
	f.StringVar(&o.Containerd, "containerd-config", "", "containerd's configuration on the node (default: the distribution's, such as /etc/containerd/config.toml)")
	f.StringVar(&o.DropIns, "drop-ins", "", "directory on the node for the runtime's section (default: the distribution's, such as conf.d beside containerd's configuration)")
	f.StringVar(&o.Socket, "socket", "", "containerd's socket on the node (default: the distribution's, such as /run/containerd/containerd.sock)")
	f.StringVar((*string)(&o.Restart), "restart", string(node.RestartAuto), "how containerd is restarted: auto, systemd, signal, watch or none")
	f.StringVar(&o.Service, "service", "", "containerd's unit, if systemd restarts it (default: containerd.service, or the distribution's)")
	f.DurationVar(&o.Patience, "patience", 0, "how long containerd may take to come back (default 1m, or the distribution's)")
	return o
}

func newInstall() *cobra.Command {
	cmd := &cobra.Command{Use: "install", Short: "Put the programs, the node file and containerd's runtime onto the node", Args: cobra.NoArgs}
	o := nodeFlags(cmd)
	cmd.Flags().StringVar(&o.Source, "source", "/usr/local/lib/crsc", "directory with the programs")
	cmd.Flags().StringVar(&o.NodeFile, "node-file", "", "node file to put there (default: keep the node's, or a minimal one)")
	cmd.Flags().StringVar(&o.Daemon, "containerd", "", "containerd's program on the node, if it does not run now, as where the node's image is made")
	cmd.Flags().StringVar(&o.StateDir, "state-dir", "", "state_dir of the node file, which gets it if it has none (default: what the node file says)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.NodeFile != "" {
			if _, err := config.Load(o.NodeFile); err != nil {
				return err
			}
		}
		return node.Install(cmd.Context(), *o)
	}
	return cmd
}

func newUninstall() *cobra.Command {
	cmd := &cobra.Command{Use: "uninstall", Short: "Take away what install put onto the node", Args: cobra.NoArgs}
	o := nodeFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return node.Uninstall(cmd.Context(), *o) }
	return cmd
}

func newAgent() *cobra.Command {
	cmd := &cobra.Command{Use: "agent", Short: "Label the node, and put Events on its pods, until ended", Args: cobra.NoArgs}
	o := agent.Options{Log: say}
	cmd.Flags().StringVar(&o.Node, "node", os.Getenv("NODE_NAME"), "name of the node (default: $NODE_NAME)")
	cmd.Flags().StringVar(&o.StateDir, "state-dir", config.DefaultStateDir, "state_dir of the node file, as seen from here")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.Check(); err != nil {
			return err
		}
		return agent.Run(cmd.Context(), o)
	}
	return cmd
}

func newRetire() *cobra.Command {
	cmd := &cobra.Command{Use: "retire", Short: "Take the label off the node, and wait to be ended", Args: cobra.NoArgs}
	name := cmd.Flags().String("node", os.Getenv("NODE_NAME"), "name of the node (default: $NODE_NAME)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := (agent.Options{Node: *name}).Check(); err != nil {
			return err
		}
		if err := agent.Retire(cmd.Context(), *name); err != nil {
			return err
		}
		<-cmd.Context().Done()
		return nil
	}
	return cmd
}
