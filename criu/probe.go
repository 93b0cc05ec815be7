package criu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// MinVersion is the oldest CRIU that is supported, as CRIU counts: 4.1.0.
const MinVersion = 40100

// patchedBuild is how the name of the build begins ("GitID" in `criu --version`)
// if it was made with the patches.
const patchedBuild = "crsc."

// Features is what Probe found.
type Features struct {
	Path    string // of the binary
	Version int    // 40201 is 4.2.1
	// Patched: it has the changes of testing/env/criu-patches. Memory that is
	// reserved for its images is of use then; see DumpOptions.Reserve.
	Patched bool
	// MemTrack: the kernel tracks dirtied pages, so dumps could be incremental.
	MemTrack bool
	// LazyPages: memory can be restored on demand, through userfaultfd.
	LazyPages bool
	// OneUser: this process lacks CAP_SYS_RESOURCE, so only containers whose
	// processes all run as one user and group can be dumped. See ownerOf.
	OneUser bool
	// Missing names what `criu check` found wanting, one finding a line of
	// CRIU's. It is empty if checkpoints work.
	Missing []string
}

func (f Features) String() string {
	s := fmt.Sprintf("CRIU %s at %s", versionText(f.Version), f.Path)
	if f.Patched {
		s += ", patched"
	}
	if !f.MemTrack {
		s += ", no dirty memory tracking"
	}
	if f.OneUser {
		s += ", only containers with a single user (CAP_SYS_RESOURCE is missing)"
	}
	for _, m := range f.Missing {
		s += ", missing: " + m
	}
	return s
}

func versionText(v int) string {
	s := fmt.Sprintf("%d.%d", v/10000, v/100%100)
	if v%100 != 0 {
		s += fmt.Sprintf(".%d", v%100)
	}
	return s
}

// Find returns the path of the CRIU binary: path itself if it is not empty, else
// the one in PATH. The error wraps ErrNotFound.
func Find(path string) (string, error) {
	name := path
	if name == "" {
		name = "criu"
	}
	found, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return found, nil
}

// ProbeOptions are the options of Probe.
type ProbeOptions struct {
	// Path of the binary; empty means the one in PATH.
	Path string
	// Kerndat, if set, is a file that is written for DumpOptions.Kerndat. It is
	// good for this CRIU and until the host boots again.
	Kerndat string
	// Patience is how long CRIU may take for one answer, which takes some tens of
	// milliseconds, before it is killed. 0 is DefaultProbePatience.
	Patience time.Duration
	// Start runs the children; nil is os/exec. See DumpOptions.
	Start StartFunc
}

// DefaultProbePatience is the default of ProbeOptions.Patience.
const DefaultProbePatience = 10 * time.Second

// Probe asks CRIU what it and the kernel can do. It takes about 100 ms: do it
// once. The error wraps ErrNotFound, or ErrUnsupported if CRIU is too old or
// does not work here; Features tells as much as was found out.
func Probe(ctx context.Context, o ProbeOptions) (Features, error) {
	var f Features
	if o.Start == nil {
		o.Start = startChild
	}
	o.Patience = cmp.Or(o.Patience, DefaultProbePatience)
	path, err := Find(o.Path)
	if err != nil {
		return f, err
	}
	f.Path = path
	ask := func(req *rpc.CriuReq) (*rpc.CriuResp, error) {
		child, err := spawn{path: path, start: o.Start, patience: o.Patience}.run()
		if err != nil {
			return nil, err
		}
		return child.call(ctx, req, func(string, int, []*os.File) error { return nil })
	}
	resp, err := ask(&rpc.CriuReq{Type: rpc.CriuReqType_VERSION.Enum()})
	if err != nil {
		return f, fmt.Errorf("%s: ask for the version: %w", path, err)
	}
	v := resp.GetVersion()
	f.Version = int(v.GetMajorNumber())*10000 + int(v.GetMinorNumber())*100 + int(v.GetSublevel())
	f.Patched = strings.HasPrefix(v.GetGitid(), patchedBuild)
	if f.Version < MinVersion {
		return f, fmt.Errorf("%w: %s is CRIU %s, and %s or newer is needed", ErrUnsupported, path, versionText(f.Version), versionText(MinVersion))
	}
	yes := proto.Bool(true)
	resp, err = ask(&rpc.CriuReq{Type: rpc.CriuReqType_FEATURE_CHECK.Enum(), Features: &rpc.CriuFeatures{MemTrack: yes, LazyPages: yes}})
	if err != nil {
		return f, fmt.Errorf("%s: ask for features: %w", path, err)
	}
	f.MemTrack, f.LazyPages = resp.GetFeatures().GetMemTrack(), resp.GetFeatures().GetLazyPages()
	if f.OneUser, err = lacksSysResource(); err != nil {
		return f, err
	}
	if o.Kerndat == "" {
		return f, f.check(o)
	}
	return f, askKernel(o.Kerndat, func() error { return f.check(o) })
}

func lacksSysResource() (bool, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return false, fmt.Errorf("capget: %w", err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) == 0, nil
}

// check runs `criu check`, which tries what a dump needs.
func (f *Features) check(o ProbeOptions) error {
	out, err := os.CreateTemp("", "criu-check")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd := exec.Command(f.Path, "check", "-v1")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	wait, err := o.Start(cmd)
	if err != nil {
		return fmt.Errorf("run criu check: %w", err)
	}
	end := time.AfterFunc(o.Patience, func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) })
	status, err := wait()
	if !end.Stop() {
		return fmt.Errorf("%w: criu check took longer than %v", ErrStuck, o.Patience)
	}
	if err != nil {
		return fmt.Errorf("wait for criu check: %w", err)
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		return err
	}
	if status == 0 {
		return nil
	}
	f.Missing = findings(string(b))
	return &Error{Op: "check", Line: strings.Join(f.Missing, "; "), Log: string(b), Err: errors.Join(ErrUnsupported, fmt.Errorf("status %d", status))}
}

// findings returns the complaints in the output of `criu check`.
func findings(out string) []string {
	var list []string
	for line := range strings.Lines(out) {
		_, text, ok := strings.Cut(line, "Error (")
		if !ok || isHarmless(line) || isConsequence(line) {
			continue
		}
		// "criu/cr-check.c:123): text"
		if _, after, ok := strings.Cut(text, "): "); ok {
			text = after
		}
		list = append(list, strings.TrimSpace(text))
	}
	return list
}
