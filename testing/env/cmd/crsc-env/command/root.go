package command

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/crsc-io/crsc/testing/env"
	"github.com/crsc-io/crsc/testing/env/ociimage"
)

// ExitStatus is the status of the command that exec ran.
type ExitStatus int

func (s ExitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// Root returns the command tree.
func Root() *cobra.Command {
	instance := os.Getenv(env.InstanceVariable)
	root := &cobra.Command{
		Use:           "env",
		Short:         "A private containerd and network for tests and the demo",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&instance, "instance", instance, "which of several environments of this clone")
	open := func() (*env.Env, error) { return env.Locate(instance) }
	root.AddCommand(up(open), down(open), execute(open), status(open), netns(open), image(open))
	return root
}

type opener func() (*env.Env, error)

func up(open opener) *cobra.Command {
	return &cobra.Command{Use: "up", Short: "Bring the environment up; does nothing when it is", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := open()
			if err != nil {
				return err
			}
			return e.Up(cmd.Context())
		}}
}

func down(open opener) *cobra.Command {
	return &cobra.Command{Use: "down", Short: "Destroy the environment and everything in it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := open()
			if err != nil {
				return err
			}
			return e.Down(cmd.Context())
		}}
}

func execute(open opener) *cobra.Command {
	var down bool
	cmd := &cobra.Command{Use: "exec [--down] -- CMD [ARG…]", Short: "Run a command in the environment, bringing it up if it is down",
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			e, err := open()
			if err != nil {
				return err
			}
			status, err := e.Exec(down, args)
			if err == nil && status != 0 {
				err = ExitStatus(status)
			}
			return err
		}}
	cmd.Flags().BoolVar(&down, "down", false, "destroy the environment when the command has ended")
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func status(open opener) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "Show what exists", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e, err := open()
			if err != nil {
				return err
			}
			return e.Status(cmd.Context(), cmd.OutOrStdout())
		}}
}

func netns(open opener) *cobra.Command {
	var remove bool
	cmd := &cobra.Command{Use: "netns NAME", Short: "Make a further pod namespace, and print its path and addresses", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := open()
			if err != nil {
				return err
			}
			if remove {
				return e.RemovePod(args[0])
			}
			if err := e.Up(cmd.Context()); err != nil {
				return err
			}
			pod, err := e.MakePod(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), pod.Path, pod.IP4, pod.IP6)
			return err
		}}
	cmd.Flags().BoolVar(&remove, "remove", false, "remove it instead")
	return cmd
}

func image(open opener) *cobra.Command {
	return &cobra.Command{Use: "image NAME…", Short: "Build local images from Debian packages, import them, and print their names",
		Long: "Known names: " + ociimage.Names(), Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := open()
			if err != nil {
				return err
			}
			if err := e.Up(cmd.Context()); err != nil {
				return err
			}
			for _, name := range args {
				ref, err := ociimage.Import(cmd.Context(), e, name)
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), ref)
			}
			return nil
		}}
}
