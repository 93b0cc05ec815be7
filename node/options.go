package node

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"

	"github.com/crsc-io/crsc/config"
)

// Options say where things are. Paths are the node's, as its containerd sees
// them, unless they say otherwise.
type Options struct {
	// Host is where the node's root directory is seen; default "/".
	Host string
	// Source is a directory, as this program sees it, with the programs.
	Source string
	// Prefix is where they go, into bin; default /opt/crsc. Uninstall removes all
	// that is in it, so its name must have "crsc" in it.
	Prefix string
	// Programs is the directory with the programs where a package or the maker of
	// the node's image has put them: Install then copies none, and Uninstall takes
	// nothing away but what it put into containerd's configuration. Empty: Install
	// copies them from Source.
	Programs string
	// NodeFile is a node file, as this program sees it, that is put onto the
	// node; empty: the node keeps the one that it has, or gets a default.
	NodeFile string
	// StateDir is the state_dir of the node file on which others rely, such as the
	// agent, which sees nothing else of the node; empty: nobody does.
	StateDir string
	// Distribution says what the defaults of the paths below are; default
	// DistributionAuto.
	Distribution Distribution
	// Containerd is the path of containerd's configuration; default: the
	// distribution's, such as /etc/containerd/config.toml.
	Containerd string
	// DropIns is the directory of the file with our runtime; default: the
	// distribution's, such as conf.d beside containerd's configuration.
	DropIns string
	// Socket of containerd; default: the distribution's, such as
	// /run/containerd/containerd.sock.
	Socket string
	// Daemon is the path of containerd's program, for a node on which it does not
	// run, such as an image that is being made; nothing is restarted then. Empty:
	// the one that listens at Socket.
	Daemon string
	// Restart says how containerd is restarted; default RestartAuto.
	Restart Restart
	// Service is the name of the systemd unit; default containerd.service, or the
	// one of the distribution that containerd is in.
	Service string
	// Patience is how long containerd may take to come back; default 1 min, more
	// where it takes others with it.
	Patience time.Duration
	// Log takes one line per thing done; default: nothing is said.
	Log func(format string, args ...any)

	layout layout
}

// Restart is a way to restart containerd.
type Restart string

const (
	// RestartAuto is RestartWatch with k0s, RestartSystemd where the node runs
	// systemd, else RestartSignal; but k3s and RKE2 end with their containerd, so
	// without systemd they are refused.
	RestartAuto Restart = "auto"
	// RestartSystemd asks systemd to restart the unit.
	RestartSystemd Restart = "systemd"
	// RestartSignal ends containerd with SIGTERM and relies on whatever started
	// it to start it again. It needs the node's process namespace.
	RestartSignal Restart = "signal"
	// RestartWatch relies on whatever has started containerd to restart it when a
	// drop-in changes, or else is RestartSignal.
	RestartWatch Restart = "watch"
	// RestartNone leaves it to the administrator.
	RestartNone Restart = "none"
)

func (o Options) defaultsAndValidate() (Options, error) {
	def := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	def(&o.Host, "/")
	def(&o.Prefix, "/opt/crsc")
	def((*string)(&o.Distribution), string(DistributionAuto))
	l, err := o.findLayout()
	if err != nil {
		return o, err
	}
	o.layout = l
	def(&o.Containerd, l.config)
	def(&o.DropIns, o.dropInsOf(l, o.Containerd))
	def(&o.Socket, l.socket)
	def((*string)(&o.Restart), string(RestartAuto))
	if o.Patience == 0 {
		o.Patience = l.patience
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	for name, path := range map[string]string{
		"state-dir": cmp.Or(o.StateDir, config.DefaultStateDir), "host": o.Host, "prefix": o.Prefix, "containerd-config": o.Containerd, "drop-ins": o.DropIns, "socket": o.Socket,
	} {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return o, fmt.Errorf("%s: %q is not an absolute, clean path", name, path)
		}
	}
	for name, path := range map[string]string{"programs": o.Programs, "containerd": o.Daemon} {
		if path != "" && (!filepath.IsAbs(path) || filepath.Clean(path) != path) {
			return o, fmt.Errorf("%s: %q is not an absolute, clean path", name, path)
		}
	}
	if !ours(o.Prefix) {
		return o, fmt.Errorf("prefix: %q is no directory of its own, such as /opt/crsc: uninstall would remove everything in it", o.Prefix)
	}
	switch o.Restart {
	case RestartAuto, RestartSystemd, RestartSignal, RestartWatch, RestartNone:
		return o, nil
	}
	return o, fmt.Errorf("restart: %q is none of auto, systemd, signal, watch, none", o.Restart)
}

// ours says that a directory, by its name, is for nothing but crsc.
func ours(dir string) bool { return strings.Contains(filepath.Base(dir), "crsc") }

// here is where this program sees a path of the node. Symbolic links on the way
// lead where the node sees them lead, not into the root directory of this
// program.
func (o Options) here(path string) string {
	real, err := securejoin.SecureJoin(o.Host, path)
	if err != nil {
		return filepath.Join(o.Host, path) // whoever opens it meets the error
	}
	return real
}

// programs is the directory of the programs on the node.
func (o Options) programs() string { return cmp.Or(o.Programs, filepath.Join(o.Prefix, "bin")) }

const dropInName = "crsc.toml"

func (o Options) dropIn() string { return filepath.Join(o.DropIns, dropInName) }
