package recovery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/crsc-io/crsc/config"
	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/oci"
	"github.com/crsc-io/crsc/shim/lifecycle"
)

// beginning is an image that the container begins with. Nothing of it decides
// about the container: spec, network and limits are those of the live bundle,
// and what the image would add to them is a reason to refuse it.
type beginning struct {
	image     string // name and digest; or what it was inherited from
	inherited bool   // of the pod before; if it does not fit the container begins anew
	cp        *checkpoint
	contents  *criu.Contents
	// addresses that the pod before had.
	addresses []netip.Addr
	profiled  bool // its first seccomp filter is said to be runc's
}

// refuse makes an error fail the creation: who asks for an image does not want
// the container to begin anew.
func (g *guard) refuse(err error) error {
	if err == nil {
		return nil
	}
	g.log.WithError(err).Warn("the container is not restored from the image, and not created")
	return fmt.Errorf("%s: %w: %w", config.KeyRestoreFrom, err, lifecycle.ErrRefused)
}

// trust reads the node's keys.
func (g *guard) trust() (*oci.Trust, error) {
	own, err := oci.OpenSigner(g.cfg.Images.SigningKey)
	if err != nil {
		return nil, err
	}
	return oci.NewTrust(oci.TrustOptions{
		Own: own, Keys: g.cfg.Images.TrustedKeys,
		AllowUnsigned: g.cfg.Images.AllowUnsigned, IdentityFile: g.cfg.Images.IdentityFile,
	})
}

// fetchBeginning brings the image into the state directory.
func (g *guard) fetchBeginning(ctx context.Context) error {
	trust, err := g.trust()
	if err != nil {
		return err
	}
	store, err := dialStore()
	if err != nil {
		return err
	}
	defer store.Close()
	ctx = namespaces.WithNamespace(ctx, g.c.Namespace())
	here, err := g.origins(ctx)
	if err != nil {
		return err
	}
	if err := store.Complete(ctx, &here); err != nil {
		return err
	}
	list, err := store.Find(ctx, g.cfg.RestoreFrom)
	if err != nil {
		return err
	}
	var errs []error
	for _, image := range list {
		err := g.fetchImage(ctx, store, trust, here, image)
		if err == nil {
			g.keepImages(ctx, store, trust, list)
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", image.Name, err))
		if !unusable(err) {
			break
		}
		g.log.WithError(err).WithField("image", image.Name).Warn("image is passed over")
	}
	return errors.Join(errs...)
}

// keepImages keeps the images of a reference for the next time it is asked for:
// the one that was taken, and those to fall back on.
func (g *guard) keepImages(ctx context.Context, store *oci.Store, trust *oci.Trust, list []images.Image) {
	for _, image := range list {
		if err := store.Keep(ctx, image.Target, trust); err != nil {
			g.log.WithError(err).WithField("image", image.Name).Warn("pruning references would take this image's layers")
		}
	}
}

// unusable tells an image with a fault of its own from one that does not fit:
// then those before it do not either.
func unusable(err error) bool {
	for _, e := range []error{oci.ErrCorrupt, oci.ErrIncomplete, oci.ErrTooLarge, oci.ErrUntrusted, oci.ErrNotCheckpoint, oci.ErrUnsupportedVersion, criu.ErrCorrupt} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (g *guard) beginningDir() string { return filepath.Join(g.dir, "beginning") }

func (g *guard) fetchImage(ctx context.Context, store *oci.Store, trust *oci.Trust, here oci.Origin, image images.Image) error {
	info, err := oci.Inspect(ctx, store.Content, image.Target, trust)
	if err != nil {
		return err
	}
	warnings, err := info.Compatible(here)
	if err != nil {
		return err
	}
	dir := g.beginningDir()
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	room, err := roomFor(g.dir)
	if err != nil {
		return err
	}
	o := oci.FetchOptions{Trust: trust, Bytes: room, Transient: true}
	if info, err = oci.Fetch(ctx, store.Content, image.Target, dir, o); err != nil {
		return err
	}
	b := &beginning{image: image.Name + "@" + image.Target.Digest.String(), cp: &checkpoint{seq: info.Sequence, dir: dir, at: time.Now()}}
	if err := criu.Validate(b.cp.images()); err != nil {
		return fmt.Errorf("%w: %w", criu.ErrCorrupt, err)
	}
	spec, err := g.c.Spec()
	if err != nil {
		return err
	}
	if b.contents, err = criu.ReadContents(b.cp.images(), maskedPaths(spec)); err != nil {
		return err
	}
	was, err := specOfImage(info.Spec)
	if err != nil {
		return err
	}
	if err := errors.Join(sameMounts(was, spec), confined(b.contents, spec)); err != nil {
		return err
	}
	b.profiled = was.Linux != nil && was.Linux.Seccomp != nil
	for _, w := range warnings {
		g.log.WithField("image", b.image).Warn("restore: " + w)
	}
	g.begin = b
	return nil
}

// roomFor is how many bytes an image may unpack to in a directory. Pages count
// twice: they are unpacked, and then put together.
func roomFor(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	free := int64(st.Bavail)*st.Bsize - headroom
	if free <= 0 {
		return 0, fmt.Errorf("%w: %s", errNoRoom, dir)
	}
	return min(free, oci.DefaultFetchBytes), nil
}

// checkBeginning compares the image with the container that has been created.
func (g *guard) checkBeginning() error {
	if err := g.admit(g.begin.cp, g.begin.contents, g.begin.profiled); err != nil {
		return err
	}
	if g.begin.inherited {
		return g.keepAddresses()
	}
	return g.checkAddresses(g.begin.contents)
}

// checkAddresses refuses sockets that could not be bound here.
func (g *guard) checkAddresses(contents *criu.Contents) error {
	have, err := g.pins.Addresses()
	if err != nil {
		return err
	}
	for _, b := range contents.Bound {
		if a := b.Addr().Unmap(); !a.IsUnspecified() && !a.IsMulticast() && !slices.Contains(have, a) {
			return fmt.Errorf("%w: a socket is bound to %s, which is not an address of this container", oci.ErrIncompatible, b)
		}
	}
	return nil
}

func maskedPaths(spec *specs.Spec) []string {
	if spec.Linux == nil {
		return nil
	}
	return spec.Linux.MaskedPaths
}

// StartInstead implements lifecycle.Guard.
func (g *guard) StartInstead(*lifecycle.Container) lifecycle.StartFunc {
	if g.begin == nil {
		return nil
	}
	return g.startFromImage
}

// startFromImage makes the processes of the image in the container that has been
// created, and protects them from there on.
func (g *guard) startFromImage(ctx context.Context, stdio *lifecycle.Stdio) (int, error) {
	b, begun := g.begin, time.Now()
	if err := g.neighbours.sharing(); err != nil {
		return 0, err
	}
	if err := g.files.rollback(g.ctx, b.cp.dir, newOwners(b.contents.IDMaps, g.pins.IDMaps)); err != nil {
		return 0, fmt.Errorf("%s: %w", b.image, err)
	}
	o := g.restoreOptions(b.cp, stdio)
	o.Moved, o.Unconnected = true, !b.inherited
	if b.inherited {
		if err := g.adopt(ctx, b.cp); err != nil {
			return 0, fmt.Errorf("%s: connections: %w", b.image, err)
		}
	}
	pid, _, err := criu.Restore(ctx, o)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", b.image, err)
	}
	g.procs.follow(pid)
	g.procs.look()
	if b.inherited {
		if err := g.release(ctx, b.cp); err != nil {
			return 0, errors.Join(fmt.Errorf("%s: connections: %w", b.image, err), killRestored(pid))
		}
	}
	g.seq, g.fromStart = b.cp.seq, false
	g.mu.Lock()
	g.status.RestoredFrom = b.image
	g.mu.Unlock()
	if err := os.RemoveAll(b.cp.dir); err != nil {
		g.log.WithError(err).Warn("what came from the image was not removed")
	}
	g.log.WithField("image", b.image).WithField("took", time.Since(begun)).Info("restored from an image")
	return pid, nil
}
