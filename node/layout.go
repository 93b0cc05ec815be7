package node

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Distribution says who has set up the node's containerd, and with that where
// its files are.
type Distribution string

const (
	// DistributionAuto is the one whose containerd accepts connections;
	// DistributionContainerd where there is no other.
	DistributionAuto Distribution = "auto"
	// DistributionContainerd is containerd with a configuration of the node's
	// own, as kubeadm and most images of nodes have it.
	DistributionContainerd Distribution = "containerd"
	// DistributionK3s, DistributionRKE2, DistributionK0s and DistributionMicroK8s
	// generate containerd's configuration.
	DistributionK3s      Distribution = "k3s"
	DistributionRKE2     Distribution = "rke2"
	DistributionK0s      Distribution = "k0s"
	DistributionMicroK8s Distribution = "microk8s"
)

// layout is where a distribution has things on the node.
type layout struct {
	name           Distribution
	config, socket string
	// dropIns is a directory beside config. k3s and RKE2 have one for each
	// version of the format.
	dropIns, dropInsV2 string
	// runc, beside config, is that of the release that is installed, where the
	// directory in containerd's PATH goes with an upgrade. RKE2 keeps it for its own
	// shims only.
	runc string
	// remedy says how config comes to import the drop-ins where it does not;
	// DIR: their directory. The distribution writes config anew at each start, so
	// it is not for us to extend. Empty: it is the administrator's, and gets our
	// import.
	remedy string
	// units are parts of the names of the systemd units that containerd may be
	// in; none: its unit is containerd.service.
	units []string
	// child: whoever has started containerd ends with it.
	child bool
	// watched: whoever has started containerd restarts it when a drop-in changes.
	watched  bool
	patience time.Duration
}

const (
	k3sSocket = "/run/k3s/containerd/containerd.sock"
	k3sRemedy = "upgrade to a release that imports DIR/*.toml by itself (of spring 2026 or newer), or make a config-v3.toml.tmpl beside it with the two lines `imports = [\"DIR/*.toml\"]` and `{{ template \"base\" . }}`; then restart the service"
	k0sRemedy = "k0s does from version 1.36 on, unless the file is an administrator's (its first line is then not `# k0s_managed=true`): upgrade k0s, or put \"DIR/*.toml\" among the imports and restart k0s"
	// snap fills in the template at each start, and keeps it in an upgrade.
	snapRemedy = "put the line `imports = [\"DIR/*.toml\"]` at the top of containerd-template.toml beside it, and run `snap restart microk8s.daemon-containerd`"
)

func layouts() []layout {
	return []layout{
		{
			name: DistributionContainerd, config: "/etc/containerd/config.toml", socket: "/run/containerd/containerd.sock",
			dropIns: "conf.d", patience: time.Minute,
		},
		{
			name: DistributionK3s, config: "/var/lib/rancher/k3s/agent/etc/containerd/config.toml", socket: k3sSocket,
			dropIns: "config-v3.toml.d", dropInsV2: "config.toml.d", remedy: k3sRemedy,
			units: []string{"k3s", "rke2"}, child: true, patience: 5 * time.Minute,
		},
		{
			name: DistributionRKE2, config: "/var/lib/rancher/rke2/agent/etc/containerd/config.toml", socket: k3sSocket,
			dropIns: "config-v3.toml.d", dropInsV2: "config.toml.d", runc: "../../../bin/runc", remedy: k3sRemedy,
			units: []string{"k3s", "rke2"}, child: true, patience: 5 * time.Minute,
		},
		{
			name: DistributionK0s, config: "/etc/k0s/containerd.toml", socket: "/run/k0s/containerd.sock",
			dropIns: "containerd.d", remedy: k0sRemedy, watched: true, patience: 2 * time.Minute,
		},
		{
			name: DistributionMicroK8s, config: "/var/snap/microk8s/current/args/containerd.toml", socket: "/var/snap/microk8s/common/run/containerd.sock",
			dropIns: "containerd.d", remedy: snapRemedy, units: []string{"microk8s"}, patience: 2 * time.Minute,
		},
	}
}

// findLayout finds the layout of the node: the one that the options name, or else
// the one whose containerd answers. That of a distribution goes before
// containerd's own, which may be Docker's.
func (o Options) findLayout() (layout, error) {
	all := layouts()
	if o.Distribution != DistributionAuto {
		var names []string
		for _, l := range all {
			if l.name == o.Distribution {
				return o.placed(l), nil
			}
			names = append(names, string(l.name))
		}
		return layout{}, fmt.Errorf("distribution: %q is none of auto, %s", o.Distribution, strings.Join(names, ", "))
	}
	var found []layout
	for _, l := range all[1:] {
		if o.Daemon == "" && (o.Containerd == "" || o.Containerd == l.config) && (o.Socket == "" || o.Socket == l.socket) && answers(o.here(l.socket)) {
			found = append(found, l)
		}
	}
	if len(found) > 1 && found[0].socket == found[1].socket {
		found = append([]layout{o.whoseSocket(found[0], found[1])}, found[2:]...)
	}
	switch len(found) {
	case 0:
		return o.leftBehind(all), nil
	case 1:
		return o.placed(found[0]), nil
	}
	return layout{}, fmt.Errorf("the containerds of both %s and %s run on the node: say which one the kubelet uses with --distribution", found[0].name, found[1].name)
}

// whoseSocket picks among k3s and RKE2, which have the same socket: by the
// configuration that containerd was started with, or else by which one is there.
func (o Options) whoseSocket(k3s, rke2 layout) layout {
	d, err := o.at(k3s.socket)
	config := d.config()
	for _, l := range []layout{k3s, rke2} {
		if err == nil && strings.Contains(config, "/"+string(l.name)+"/") {
			return l
		}
	}
	if _, err := os.Stat(o.here(rke2.config)); err == nil && config == "" {
		return rke2
	}
	return k3s // in a --data-dir of either, all else is the same
}

// placed puts a layout where containerd was told that its configuration is, such
// as in a --data-dir of k3s.
func (o Options) placed(l layout) layout {
	if !l.child || o.Daemon != "" {
		return l
	}
	if d, err := o.at(cmp.Or(o.Socket, l.socket)); err == nil && filepath.IsAbs(d.config()) {
		l.config = filepath.Clean(d.config())
	}
	return l
}

// leftBehind is the layout of a node on which only containerd's own may run: one
// that still has our drop-in, or else containerd's.
func (o Options) leftBehind(all []layout) layout {
	for _, l := range all[1:] {
		if o.Daemon == "" && o.Containerd == "" && o.Socket == "" && !answers(o.here(all[0].socket)) {
			if _, err := os.Stat(o.here(filepath.Join(o.dropInsOf(l, l.config), dropInName))); err == nil {
				return l
			}
		}
	}
	return all[0]
}

// dropInsOf is the directory that a configuration of a layout imports.
func (o Options) dropInsOf(l layout, config string) string {
	name := l.dropIns
	if l.dropInsV2 != "" {
		text, err := os.ReadFile(o.here(config))
		if m, perr := parseMain(text); err == nil && perr == nil && m.Version == 2 {
			name = l.dropInsV2
		}
	}
	return filepath.Join(filepath.Dir(config), name)
}

// lastingRunc is the path of a runc that outlives an upgrade; empty: the one in
// containerd's PATH does.
func (o Options) lastingRunc() string {
	if o.layout.runc == "" {
		return ""
	}
	path := filepath.Join(filepath.Dir(o.Containerd), o.layout.runc)
	if _, err := os.Stat(o.here(path)); err != nil {
		return ""
	}
	return path
}

// usable refuses what can't work on a node, before anything is done there.
func (l layout) usable(o Options) error {
	if l.name != DistributionMicroK8s {
		return nil
	}
	const snap = "/snap/microk8s/current/meta/snap.yaml"
	text, err := os.ReadFile(o.here(snap))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if bytes.Contains(text, []byte("\nconfinement: strict")) {
		return fmt.Errorf("%w: the snap microk8s is strictly confined (%s), so its containerd may not start %s: install one with classic confinement", ErrConfig, snap, o.shim())
	}
	return nil
}

// mustImport is the error where a generated configuration does not import our
// drop-in.
func (l layout) mustImport(o Options) error {
	return fmt.Errorf("%w: %s does not import %s, and is %s's, which writes it anew: %s",
		ErrConfig, o.Containerd, o.dropIn(), l.name, strings.ReplaceAll(l.remedy, "DIR", o.DropIns))
}

func answers(socket string) bool {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return false
	}
	return c.Close() == nil
}
