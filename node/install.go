package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"

	"github.com/crsc-io/crsc/config"
)

// newMain is the main configuration file of a node that has none: containerd
// runs with its defaults there, and keeps them.
const newMain = "# Written by crsc-node.\nversion = 3\n"

// nodeFilePath is where the shim looks for the node file.
const nodeFilePath = "/etc/crsc/config.toml"

// Install puts everything onto the node that is not there already. It may be
// repeated at any time; it then brings programs and configuration up to date.
// When containerd's configuration can't be extended safely the error wraps
// ErrConfig, and containerd's files are as they were.
func Install(ctx context.Context, o Options) error {
	o, err := o.defaultsAndValidate()
	if err != nil {
		return err
	}
	d, err := o.ready()
	if err != nil {
		return err
	}
	if err := o.putPrograms(); err != nil {
		return fmt.Errorf("programs: %w", err)
	}
	if err := o.writeNodeFile(); err != nil {
		return fmt.Errorf("node file: %w", err)
	}
	changed, err := o.configureFor(ctx, d)
	if err != nil || !changed || o.Daemon != "" {
		return err
	}
	return o.restart(ctx, d)
}

// ready finds containerd, and refuses a node on which it could not be restarted,
// while nothing has been done there yet.
func (o Options) ready() (daemon, error) {
	if err := o.layout.usable(o); err != nil {
		return daemon{}, err
	}
	if o.Daemon != "" {
		return daemon{exe: o.Daemon}, nil
	}
	d, err := o.daemon()
	if err != nil {
		return daemon{}, err
	}
	if o.layout.remedy != "" {
		o.Log("the node's containerd is that of %s, configured by %s", o.layout.name, o.Containerd)
	}
	_, _, err = o.way(d)
	return d, err
}

// putPrograms copies the programs, or makes sure that they are there already.
func (o Options) putPrograms() error {
	if o.Programs == "" {
		return copyPrograms(o.Source, o.here(o.programs()), o.Log)
	}
	st, err := os.Stat(o.here(o.shim()))
	if err == nil && (!st.Mode().IsRegular() || st.Mode()&0o111 == 0) {
		err = fmt.Errorf("%s is not a program", o.shim())
	}
	return err
}

func (o Options) writeNodeFile() error {
	path := o.here(nodeFilePath)
	if o.NodeFile != "" {
		text, err := os.ReadFile(o.NodeFile)
		if err != nil {
			return err
		}
		if text, err = o.withStateDir(o.NodeFile, text); err != nil {
			return err
		}
		if changed, err := put(path, text, 0o644); err != nil || !changed {
			return err
		}
		o.Log("wrote %s", nodeFilePath)
		return nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = o.defaultNodeFile(), nil
	}
	if err != nil {
		return err
	}
	if text, err = o.withStateDir(path, text); err != nil {
		return err
	}
	_, err = put(path, text, 0o644)
	return err
}

// defaultNodeFile is the node file of a node that has none. Without a CRIU of
// ours the one in PATH is used.
func (o Options) defaultNodeFile() []byte {
	text := []byte("# The settings are in docs/CONFIGURATION.md.\n")
	criu := filepath.Join(o.programs(), "criu")
	if _, err := os.Stat(o.here(criu)); err != nil {
		return text
	}
	return fmt.Appendf(text, "criu = %q\n", criu)
}

// withStateDir makes sure that a node file has the state_dir on which others
// rely.
func (o Options) withStateDir(file string, text []byte) ([]byte, error) {
	if o.StateDir == "" {
		return text, nil
	}
	var is struct {
		StateDir string `toml:"state_dir"`
	}
	if err := toml.Unmarshal(text, &is); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	switch is.StateDir {
	case o.StateDir:
		return text, nil
	case "":
		if o.StateDir == config.DefaultStateDir {
			return text, nil
		}
		// Before the first table, or it would belong to the last.
		return append(fmt.Appendf(nil, "state_dir = %q\n", o.StateDir), text...), nil
	}
	return nil, fmt.Errorf("%w: %s has state_dir %q, and the agent looks into %q: leave it out of the node file, or set the volume \"state\" and --state-dir to the same",
		ErrStateDir, file, is.StateDir, o.StateDir)
}

// configureFor gives containerd our runtime. It says whether containerd must be
// restarted.
func (o Options) configureFor(ctx context.Context, d daemon) (changed bool, err error) {
	main, err := save(o.here(o.Containerd))
	if err != nil {
		return false, err
	}
	extra, err := save(o.here(o.dropIn()))
	if err != nil {
		return false, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, main.restore(), extra.restore())
		}
	}()
	if main.none && o.layout.remedy != "" {
		return false, fmt.Errorf("%w: there is no %s, which %s makes: start it first", ErrConfig, o.Containerd, o.layout.name)
	}
	if main.none {
		if _, err := put(main.path, []byte(newMain), 0o644); err != nil {
			return false, err
		}
		main.text = []byte(newMain)
	}
	before, err := d.effective(ctx, o.Host, o.Containerd)
	if err != nil {
		return false, err
	}
	changed, err = o.writeConfig(main.text, before)
	if err != nil || !changed {
		return false, err
	}
	after, err := d.effective(ctx, o.Host, o.Containerd)
	if err != nil {
		return false, err
	}
	return true, o.compare(before, after)
}

// writeConfig writes the drop-in, and the import of it.
func (o Options) writeConfig(main []byte, effective table) (changed bool, err error) {
	m, err := parseMain(main)
	if err != nil {
		return false, fmt.Errorf("%w: %s: %w", ErrConfig, o.Containerd, err)
	}
	imported := m.imported(o.Containerd, o.dropIn())
	if !imported && o.layout.remedy != "" {
		return false, o.layout.mustImport(o)
	}
	text, err := dropIn(m.Version, effective, o.shim(), o.lastingRunc())
	if err != nil {
		return false, err
	}
	if changed, err = put(o.here(o.dropIn()), text, 0o644); err != nil {
		return false, err
	}
	if changed {
		o.Log("wrote %s (version %d)", o.dropIn(), m.Version)
	}
	if imported {
		return changed, nil
	}
	if main, err = addImport(main, o.dropIn()); err != nil {
		return false, fmt.Errorf("%w: %s: %w", ErrConfig, o.Containerd, err)
	}
	o.Log("%s imports it", o.Containerd)
	return put(o.here(o.Containerd), main, 0o644)
}

// compare makes sure that the new configuration has our runtime and all that it
// had before.
func (o Options) compare(before, after table) error {
	for _, v := range []int{2, 3} {
		delete(sub(before, "plugins", runtimePlugin(v), "containerd", "runtimes"), handler)
	}
	if what := lost(before, after, ""); what != "" {
		return fmt.Errorf("%w: with the drop-in %s; add its text to %s by hand instead", ErrConfig, what, o.Containerd)
	}
	for _, v := range []int{2, 3} {
		ours := sub(after, "plugins", runtimePlugin(v), "containerd", "runtimes", handler)
		if ours["runtime_path"] == o.shim() {
			return nil
		}
	}
	return fmt.Errorf("%w: containerd does not see the runtime in %s", ErrConfig, o.dropIn())
}
