package env

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

var (
	// ErrNoClone is returned outside of a clone of the repository.
	ErrNoClone = errors.New("not inside a clone of github.com/crsc-io/crsc")
	// ErrMissing is returned when a tool or a privilege is missing; the text
	// names it and the remedy.
	ErrMissing = errors.New("missing")
)

// Env locates one environment. It holds no resources; Up and Down make and
// destroy them. Its fields are read-only.
type Env struct {
	Root      string // of the clone
	Dir       string // everything on disk
	Name      string // prefix of network namespaces
	Namespace string // of containerd
	Address   string // of containerd's gRPC socket; ttrpc has the suffix .ttrpc
	StateDir  string // state_dir of the shims
	ToolsDir  string // where testing/env/install puts binaries

	instance string
	first    []string // directories whose programs go before those of ToolsDir
	daemon   string   // further TOML for the daemon
}

// WithDaemonConfig returns the environment with further TOML in the daemon's
// configuration. A daemon that is up has it after RestartDaemon.
func (e *Env) WithDaemonConfig(toml string) *Env {
	other := *e
	other.daemon = toml
	return &other
}

// WithTools returns the environment with other programs: what is in one of the
// directories is used instead of the program of that name in ToolsDir. It must
// not be up with others.
func (e *Env) WithTools(dirs ...string) *Env {
	other := *e
	other.first = dirs
	return &other
}

// tool finds a program of the environment; absent ones are said to be in
// ToolsDir.
func (e *Env) tool(name string) string {
	for _, dir := range e.first {
		if p := filepath.Join(dir, name); executable(p) {
			return p
		}
	}
	return filepath.Join(e.ToolsDir, name)
}

// InstanceVariable is the environment variable that names the instance to whoever
// runs in one.
const InstanceVariable = "CRSC_ENV_INSTANCE"

// Locate finds the environment of the clone that the environment variable
// CRSC_CLONE names, else of the one around the working directory. The
// instance keeps several of them apart; it has at most 12 characters a-z0-9.
func Locate(instance string) (*Env, error) {
	if len(instance) > 12 || strings.Trim(instance, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return nil, fmt.Errorf("instance %q: want at most 12 characters a-z0-9", instance)
	}
	root, err := cloneRoot()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(root))
	name := "crsc-" + hex.EncodeToString(sum[:3])
	if instance != "" {
		name += "-" + instance
	}
	dir := filepath.Join(os.TempDir(), name)
	e := &Env{
		Root: root, Dir: dir, Name: name, Namespace: name, instance: instance,
		Address:  filepath.Join(dir, "containerd.sock"),
		StateDir: filepath.Join(dir, "crsc"),
		ToolsDir: filepath.Join(CacheDir(), "bin"),
	}
	// sun_path holds 108 bytes with its terminating NUL.
	if n := len(e.Address + ".ttrpc"); n > 107 {
		return nil, fmt.Errorf("socket path %s.ttrpc has %d bytes, 107 are possible: set a shorter TMPDIR", e.Address, n)
	}
	return e, nil
}

// cloneRoot walks up to the directory with our go.mod.
func cloneRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	if clone := os.Getenv("CRSC_CLONE"); clone != "" {
		dir = clone
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	for {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(data), "module github.com/crsc-io/crsc\n") {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", ErrNoClone
		}
		dir = parent
	}
}

// CacheDir is the directory that testing/env/install fills.
func CacheDir() string {
	if dir := os.Getenv("CRSC_CACHE"); dir != "" {
		return dir
	}
	base := os.Getenv("XDG_CACHE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = "/root"
		}
		base = filepath.Join(home, ".cache")
	}
	return filepath.Join(base, "crsc")
}

// Path is the value of PATH in the environment: the built shim, the tools of
// testing/env/install, then the caller's.
func (e *Env) Path() string {
	return strings.Join(append(e.programs(), os.Getenv("PATH")), ":")
}

func (e *Env) programs() []string {
	return slices.Concat([]string{filepath.Join(e.Root, "bin")}, e.first, []string{e.ToolsDir})
}

// Environ returns the caller's environment with the variables of this one.
func (e *Env) Environ() []string {
	client, pod := e.netns("client", 1), e.netns("pod", 1)
	set := map[string]string{
		"CONTAINERD_ADDRESS":   e.Address,
		"CONTAINERD_NAMESPACE": e.Namespace,
		"PATH":                 e.Path(),
		"CRSC_CONFIG":          e.configFile(),
		InstanceVariable:       e.instance,
		"CRSC_CLIENT_NETNS":    client.Path,
		"CRSC_POD_NETNS":       pod.Path,
		"CRSC_POD_IP4":         pod.IP4.String(),
		"CRSC_POD_IP6":         pod.IP6.String(),
		"CRSC_CLIENT_IP4":      pod.ClientIP4.String(),
		"CRSC_CLIENT_IP6":      pod.ClientIP6.String(),
	}
	out := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		_, ours := set[name]
		return ours || name == "CRSC_CLONE"
	})
	for name, value := range set {
		out = append(out, name+"="+value)
	}
	return out
}

// Command prepares a program, looked up in the environment's PATH first, to
// run with the environment's variables.
func (e *Env) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	for _, dir := range e.programs() {
		if p := filepath.Join(dir, name); !strings.Contains(name, "/") && executable(p) {
			name = p
			break
		}
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = e.Environ()
	return cmd
}

// Ctr runs ctr and returns its standard output. The error quotes the other.
func (e *Env) Ctr(ctx context.Context, args ...string) (string, error) {
	cmd := e.Command(ctx, "ctr", args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

func executable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

func (e *Env) configFile() string { return filepath.Join(e.Dir, "config.toml") }

// checkTools names everything that is missing, and the remedy.
func (e *Env) checkTools() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: root (network namespaces, mounts and cgroups are needed)", ErrMissing)
	}
	var missing []string
	for _, tool := range []string{"containerd", "ctr", "containerd-shim-runc-v2", "runc", "criu"} {
		if !executable(e.tool(tool)) {
			missing = append(missing, tool)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s in %s: run testing/env/install", ErrMissing, strings.Join(missing, ", "), e.ToolsDir)
	}
	return nil
}
