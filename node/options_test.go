package node

import (
	"os"
	"path/filepath"
	"testing"
)

// A link of the node that names its target from the root leads to the node's
// file, not to one of the installer's own root directory.
func TestHereFollowsLinksOnTheNode(t *testing.T) {
	host := t.TempDir()
	for _, dir := range []string{"etc/containerd", "srv"} {
		if err := os.MkdirAll(filepath.Join(host, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	kept := filepath.Join(host, "srv/config.toml")
	if err := os.WriteFile(kept, []byte("version = 2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/srv/config.toml", filepath.Join(host, "etc/containerd/config.toml")); err != nil {
		t.Fatal(err)
	}
	o := Options{Host: host}
	s, err := save(o.here("/etc/containerd/config.toml"))
	if err != nil || s.none || s.path != kept {
		t.Errorf("found %q (none: %v), %v; want %q", s.path, s.none, err, kept)
	}
	if got, want := o.here("/opt/crsc/bin"), filepath.Join(host, "opt/crsc/bin"); got != want {
		t.Errorf("what is not there: %q, want %q", got, want)
	}
}
