package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/oci"
)

func newImage() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Check checkpoint images, and show the key they are signed with",
		Args:  cobra.NoArgs,
		RunE:  help,
	}
	cmd.AddCommand(newImageVerify(), newImageKey())
	return cmd
}

func newImageKey() *cobra.Command {
	return &cobra.Command{
		Use:   "key",
		Short: "Print the public key that this node's images are signed with",
		Long: "Print the public key that this node's images are signed with, and make the key if there is\n" +
			"none yet. A node that names a file with it under images.trusted_keys restores them.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			node, err := config.Load("")
			if err != nil {
				return err
			}
			signer, err := oci.OpenSigner(node.Images.SigningKey)
			if err != nil {
				return err
			}
			b, err := signer.PublicKey()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s%s", "# "+signer.KeyID()+"\n", b)
			return err
		},
	}
}

func newImageVerify() *cobra.Command {
	var address, namespace string
	cmd := &cobra.Command{
		Use:   "verify NAME",
		Short: "Check every byte of a checkpoint image, and who has signed it",
		Long: "Check every byte of a checkpoint image, and who has signed it, as a restore on this node\n" +
			"would. The exit code is 2 for an image that is damaged or incomplete, 3 for one of another\n" +
			"format, 4 for one that is not trusted or can't be decrypted, and for anything else.",
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := config.Load("")
			if err != nil {
				return err
			}
			store, err := oci.Dial(address)
			if err != nil {
				return err
			}
			defer store.Close()
			ctx := namespaces.WithNamespace(cmd.Context(), namespace)
			info, err := verifyImage(ctx, node, store, args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "good: checkpoint %d of %s/%s, signed by %s, %s\n",
				info.Sequence, info.Namespace, info.Container, cmp.Or(info.Signer, "nobody who is trusted"), sealed(info))
			return err
		},
	}
	cmd.Flags().StringVarP(&address, "address", "a", cmp.Or(os.Getenv("CONTAINERD_ADDRESS"), "/run/containerd/containerd.sock"), "socket of containerd")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", cmp.Or(os.Getenv("CONTAINERD_NAMESPACE"), "default"), "namespace of containerd")
	return cmd
}

func sealed(info *oci.Info) string {
	if info.Encrypted {
		return "encrypted"
	}
	return "not encrypted"
}

// verifyImage reads an image as a restore does, into a directory that nobody
// else can read, and removes what it has read.
func verifyImage(ctx context.Context, node *config.Node, store *oci.Store, name string) (*oci.Info, error) {
	image, err := store.Images.Get(ctx, name)
	if errdefs.IsUnavailable(err) {
		return nil, fmt.Errorf("containerd does not answer (--address names another socket): %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	own, err := oci.OpenSigner(node.Images.SigningKey)
	if err != nil {
		return nil, err
	}
	trust, err := oci.NewTrust(oci.TrustOptions{
		Own: own, Keys: node.Images.TrustedKeys,
		AllowUnsigned: node.Images.AllowUnsigned, IdentityFile: node.Images.IdentityFile,
	})
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(node.StateDir, ".verify-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	return oci.Fetch(ctx, store.Content, image.Target, filepath.Join(dir, "checkpoint"), oci.FetchOptions{Trust: trust, Transient: true})
}
