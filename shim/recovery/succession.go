package recovery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/crsc-io/crsc/criu"
	"github.com/crsc-io/crsc/oci"
	"github.com/crsc-io/crsc/status"
)

// A pod that is deleted leaves the checkpoint that was made before it stopped to
// the next pod of its namespace and name: in <state_dir>/.inheritance, by
// container, until that pod takes it or a day has passed.
const (
	inheritanceDir   = ".inheritance"
	inheritanceNote  = "inheritance.json"
	inheritanceLimit = 24 * time.Hour
)

// inheritance describes what a container leaves. Version is that of its form.
type inheritance struct {
	Version     int             `json:"version"`
	Pod         status.Pod      `json:"pod"`
	ID          string          `json:"id"`
	Sequence    uint64          `json:"sequence"`
	Time        time.Time       `json:"time"`
	ImageDigest string          `json:"image_digest"`
	Arch        string          `json:"arch"`
	Kernel      string          `json:"kernel"`
	CRIU        string          `json:"criu"`
	Spec        json.RawMessage `json:"spec"`
	// Addresses of the pod, and those of earlier ones that it has kept.
	Addresses []netip.Addr `json:"addresses"`
}

const inheritanceVersion = 2

// isLast says that a checkpoint is the one that a successor is to resume from.
func (g *guard) isLast(c *status.Checkpoint) bool {
	return g.cfg.AcrossPods && g.status.Pod != nil && strings.HasPrefix(c.Cause, stopCause)
}

// heirloomDir is the place for what a container of a pod leaves.
func (g *guard) heirloomDir() string {
	p := g.status.Pod
	sum := sha256.Sum256([]byte(strings.Join([]string{g.c.Namespace(), p.Namespace, p.Name, p.Container}, "\x00")))
	return filepath.Join(g.cfg.StateDir, inheritanceDir, hex.EncodeToString(sum[:16]))
}

// describe says what this container is, as far as it matters to a successor.
func (g *guard) describe(ctx context.Context) (inheritance, error) {
	here, err := g.origins(ctx)
	if err != nil {
		return inheritance{}, err
	}
	store, err := dialStore()
	if err != nil {
		return inheritance{}, err
	}
	defer store.Close()
	if err := store.Complete(namespaces.WithNamespace(ctx, g.c.Namespace()), &here); err != nil {
		return inheritance{}, err
	}
	spec, err := g.c.Spec()
	if err != nil {
		return inheritance{}, err
	}
	addresses, err := podAddresses(spec)
	if err != nil {
		return inheritance{}, err
	}
	return inheritance{
		Version: inheritanceVersion, Pod: *g.status.Pod, ID: g.c.ID(), ImageDigest: here.ImageDigest, Arch: runtime.GOARCH,
		Kernel: here.Kernel, CRIU: here.CRIUVersion, Spec: here.Spec, Addresses: addresses,
	}, nil
}

// bequeath leaves the last checkpoint to the next pod of this name, if it was
// made for that. The container is gone.
func (g *guard) bequeath() {
	if g.store == nil || g.self == nil {
		return
	}
	cp := g.store.last()
	if cp == nil || cp.info == nil || !g.isLast(cp.info) {
		return
	}
	err := g.leave(cp)
	if err != nil {
		g.log.WithError(err).Error("the next pod of this name will begin anew")
		return
	}
	g.log.WithField("checkpoint", cp.seq).Info("left to the next pod of this name")
}

func (g *guard) leave(cp *checkpoint) error {
	if !cp.info.Quiet {
		return errors.New("requests were being answered when the checkpoint was made")
	}
	l := *g.self
	l.Sequence, l.Time = cp.seq, cp.info.Time
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(cp.dir, inheritanceNote), b, 0o600); err != nil {
		return err
	}
	to := g.heirloomDir()
	if err := errors.Join(mkdirPrivate(filepath.Dir(to)), removeStale(filepath.Dir(to)), os.RemoveAll(to)); err != nil {
		return err
	}
	return os.Rename(cp.dir, to)
}

// removeStale removes what nobody has taken for a day.
func removeStale(dir string) error {
	list, err := os.ReadDir(dir)
	for _, e := range list {
		if st, serr := e.Info(); serr == nil && time.Since(st.ModTime()) > inheritanceLimit {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// consider looks for what another container has left to this one.
func (g *guard) consider(ctx context.Context) {
	if g.legacy == nil {
		g.inherit(ctx)
		return
	}
	self, err := g.describe(ctx)
	if err == nil {
		g.self = &self
		err = g.legacy.from.fits(&self)
	}
	if err != nil {
		g.decline(err)
	}
}

// inherit takes what the pod before has left. What does not fit is of no use to
// anybody, so it is removed, and the container begins anew.
func (g *guard) inherit(ctx context.Context) {
	if !g.cfg.AcrossPods || g.status.Pod == nil {
		return
	}
	self, err := g.describe(ctx)
	if err == nil {
		g.self = &self
		err = g.take()
	}
	g.notResumed(err)
}

// take is the only one to get it: it is moved first.
func (g *guard) take() error {
	dir := g.beginningDir()
	err := os.Rename(g.heirloomDir(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(dir, inheritanceNote))
	if err != nil {
		return err
	}
	var l inheritance
	if err := json.Unmarshal(b, &l); err != nil {
		return fmt.Errorf("%s: %w", inheritanceNote, err)
	}
	if err := l.fits(g.self); err != nil {
		return err
	}
	cp := &checkpoint{seq: l.Sequence, dir: dir, at: l.Time}
	if err := cp.loadCut(); err != nil {
		return err
	}
	if err := criu.Validate(cp.images()); err != nil {
		return fmt.Errorf("%w: %w", criu.ErrCorrupt, err)
	}
	spec, err := g.c.Spec()
	if err != nil {
		return err
	}
	contents, err := criu.ReadContents(cp.images(), maskedPaths(spec))
	if err != nil {
		return err
	}
	was, err := specOfImage(l.Spec)
	if err != nil {
		return err
	}
	if err := errors.Join(sameMounts(was, spec), confined(contents, spec)); err != nil {
		return err
	}
	from := fmt.Sprintf("checkpoint %d of pod %s, container %s", l.Sequence, l.Pod.UID, l.ID)
	g.begin = &beginning{
		image: from, inherited: true, cp: cp, contents: contents, addresses: l.Addresses,
		profiled: was.Linux != nil && was.Linux.Seccomp != nil,
	}
	return nil
}

// keepInheritance decides, with the container created, whether it is used.
func (g *guard) keepInheritance(err error) {
	if err == nil {
		err = g.checkBeginning()
		if err != nil {
			g.begin = nil
			g.notResumed(err)
		}
		return
	}
	g.begin = nil
	g.notResumed(err)
}

func (g *guard) notResumed(err error) {
	if err == nil {
		return
	}
	g.log.WithError(err).Warn("the container does not resume the one before it")
	g.mu.Lock()
	g.status.NotResumed = err.Error()
	g.mu.Unlock()
	if err := os.RemoveAll(g.beginningDir()); err != nil {
		g.log.WithError(err).Warn("what the one before has left was not removed")
	}
}

// fits compares what the pod before was with what this one is.
//
// Errors: oci.ErrIncompatible.
func (l *inheritance) fits(self *inheritance) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", oci.ErrIncompatible, fmt.Sprintf(format, args...))
	}
	switch {
	case l.Version != inheritanceVersion:
		return refuse("it has version %d, and %d is known", l.Version, inheritanceVersion)
	case time.Since(l.Time) > inheritanceLimit:
		return refuse("it is older than %v", inheritanceLimit)
	case l.ImageDigest != self.ImageDigest || self.ImageDigest == "":
		return refuse("the image was %.80q and is %.80q", l.ImageDigest, self.ImageDigest)
	case l.Arch != self.Arch || l.Kernel != self.Kernel || l.CRIU != self.CRIU:
		return refuse("it was made on %s, Linux %s, with CRIU %s, and this is %s, %s, %s", l.Arch, l.Kernel, l.CRIU, self.Arch, self.Kernel, self.CRIU)
	}
	var was, is specs.Spec
	if err := errors.Join(json.Unmarshal(l.Spec, &was), json.Unmarshal(self.Spec, &is)); err != nil {
		return err
	}
	if was.Process == nil || is.Process == nil {
		return refuse("a container without a process")
	}
	for _, c := range []struct {
		what    string
		was, is []string
	}{
		{"command", without(l.identity(), was.Process.Args), without(self.identity(), is.Process.Args)},
		{"working directory", []string{was.Process.Cwd}, []string{is.Process.Cwd}},
		{"environment", without(l.identity(), template(was.Process.Env)), without(self.identity(), template(is.Process.Env))},
		{"set of crsc.io annotations", own(was.Annotations), own(is.Annotations)},
		{"user", []string{fmt.Sprint(was.Process.User)}, []string{fmt.Sprint(is.Process.User)}},
	} {
		if !slices.Equal(c.was, c.is) {
			return refuse("the template has changed: another %s", c.what) // what exactly may be secret
		}
	}
	return nil
}

// identity lists what the orchestrator may have written into a command or an
// environment, and is another for each pod.
func (l *inheritance) identity() []string {
	var out []string
	if l.Pod.UID != "" {
		out = append(out, l.Pod.UID)
	}
	for _, a := range l.Addresses {
		out = append(out, a.String())
	}
	return out
}

// template drops the variables that Kubernetes makes of the Services of the
// moment.
func template(env []string) []string {
	services := regexp.MustCompile(`^[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)=`)
	out := slices.DeleteFunc(slices.Clone(env), services.MatchString)
	slices.Sort(out)
	return out
}

// own lists the annotations that are ours.
func own(annotations map[string]string) []string {
	var out []string
	for k, v := range annotations {
		if strings.HasPrefix(k, prefix) {
			out = append(out, k+"="+v)
		}
	}
	slices.Sort(out)
	return out
}
