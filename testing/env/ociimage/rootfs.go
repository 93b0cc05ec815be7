package ociimage

import (
	"archive/tar"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// entry is one path of the layer.
type entry struct {
	header tar.Header
	source string // file of the host with the content, or empty
	text   string // content, if source is empty
}

// rootfs is a file tree, by path without leading slash.
type rootfs map[string]entry

// left out: documentation and what only a whole Debian system would read.
var skipped = []string{
	"/usr/share/doc/", "/usr/share/man/", "/usr/share/info/", "/usr/share/lintian/", "/usr/share/locale/",
	"/usr/share/bash-completion/", "/usr/share/bug/", "/usr/share/doc-base/", "/usr/share/postgresql-common/",
	"/etc/init.d/", "/etc/logrotate.d/", "/etc/default/", "/etc/cron.d/", "/etc/ufw/", "/lib/systemd/", "/usr/lib/systemd/",
}

// applets are the names under which BusyBox is linked.
const applets = "cat chmod cp date dd echo env false grep head hostname id kill ln ls mkdir mount mv nc netstat ps pwd rm sed sh sleep sort stat stty tail tar test touch tr true tty uname vi wc wget"

// build collects the tree of an image.
func build(r recipe) (rootfs, error) {
	tree := rootfs{}
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		tree.addDir(dir{"/usr/" + link, 0o755, 0, 0})
		tree.addLink("/"+link, "usr/"+link)
	}
	base := common()
	files, err := packageFiles(slices.Concat(base.packages, r.packages))
	if err != nil {
		return nil, err
	}
	libraries, err := closure(slices.AppendSeq(slices.Clone(files), maps.Values(r.programs)))
	if err != nil {
		return nil, err
	}
	for _, f := range slices.Concat(files, libraries) {
		if err := tree.addHost(f); err != nil {
			return nil, err
		}
	}
	for path, source := range r.programs {
		if err := tree.addProgram(path, source); err != nil {
			return nil, err
		}
	}
	for _, name := range strings.Fields(applets) {
		if _, taken := tree["usr/bin/"+name]; !taken {
			tree.addLink("/usr/bin/"+name, "busybox")
		}
	}
	for _, d := range slices.Concat(base.dirs, r.dirs) {
		tree.addDir(d)
	}
	for _, f := range slices.Concat(base.files, r.files) {
		tree.addText(f)
	}
	return tree, nil
}

// packageFiles lists the files and links of installed packages.
func packageFiles(packages []string) ([]string, error) {
	var out []string
	for _, p := range packages {
		list, err := exec.Command("dpkg-query", "-L", p).Output()
		if err != nil {
			return nil, fmt.Errorf("package %s is not installed: run testing/env/install deb %s", p, p)
		}
		for line := range strings.Lines(string(list)) {
			path := strings.TrimSpace(line)
			unwanted := func(prefix string) bool { return strings.HasPrefix(path, prefix) }
			if !strings.HasPrefix(path, "/") || slices.ContainsFunc(skipped, unwanted) {
				continue
			}
			st, err := os.Lstat(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed by the host's administrator, or diverted
			}
			if err != nil {
				return nil, err
			}
			if st.Mode().IsRegular() || st.Mode()&fs.ModeSymlink != 0 {
				out = append(out, path)
			}
		}
	}
	return out, nil
}

// closure lists the shared libraries that the programs among files need.
func closure(files []string) ([]string, error) {
	var programs []string
	for _, f := range files {
		if dynamic(f) {
			programs = append(programs, f)
		}
	}
	if len(programs) == 0 {
		return nil, nil
	}
	text, err := exec.Command("ldd", programs...).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd: %w", err)
	}
	found := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "=> not found") {
			return nil, fmt.Errorf("ldd: %s", strings.TrimSpace(line))
		}
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") && !strings.HasSuffix(word, ":") {
				found[word] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

func dynamic(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return f.Section(".dynamic") != nil
}

// addHost takes a file of the host; of a link also what it points to.
func (t rootfs) addHost(path string) error {
	parent, err := filepath.EvalSymlinks(filepath.Dir(path)) // merged /usr
	if err != nil {
		return err
	}
	path = filepath.Join(parent, filepath.Base(path))
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st.Mode()&fs.ModeSymlink == 0 {
		mode := int64(st.Mode().Perm())
		if st.Mode()&fs.ModeSetuid != 0 {
			mode |= 0o4000
		}
		t.parents(path)
		t[path[1:]] = entry{header: tar.Header{Typeflag: tar.TypeReg, Name: path[1:], Mode: mode, Size: st.Size()}, source: path}
		return nil
	}
	target, err := os.Readlink(path)
	if err != nil {
		return err
	}
	t.addLink(path, target)
	if !filepath.IsAbs(target) {
		target = filepath.Join(parent, target)
	}
	if st, err := os.Lstat(target); err != nil || st.IsDir() {
		return nil // dangling, or a directory whose files come by themselves
	}
	return t.addHost(target)
}

// addProgram takes a file of the host under another path.
func (t rootfs) addProgram(path, source string) error {
	st, err := os.Stat(source)
	if err != nil {
		return err
	}
	t.parents(path)
	t[path[1:]] = entry{header: tar.Header{Typeflag: tar.TypeReg, Name: path[1:], Mode: 0o755, Size: st.Size()}, source: source}
	return nil
}

func (t rootfs) addLink(path, target string) {
	t.parents(path)
	t[path[1:]] = entry{header: tar.Header{Typeflag: tar.TypeSymlink, Name: path[1:], Linkname: target, Mode: 0o777}}
}

func (t rootfs) addText(f file) {
	t.parents(f.path)
	t[f.path[1:]] = entry{header: tar.Header{Typeflag: tar.TypeReg, Name: f.path[1:], Mode: f.mode, Size: int64(len(f.text))}, text: f.text}
}

func (t rootfs) addDir(d dir) {
	t.parents(d.path)
	t[d.path[1:]] = entry{header: tar.Header{Typeflag: tar.TypeDir, Name: d.path[1:] + "/", Mode: d.mode, Uid: d.uid, Gid: d.gid}}
}

// parents adds the directories above path that are not there yet.
func (t rootfs) parents(path string) {
	for p := filepath.Dir(path); p != "/"; p = filepath.Dir(p) {
		if _, ok := t[p[1:]]; !ok {
			t[p[1:]] = entry{header: tar.Header{Typeflag: tar.TypeDir, Name: p[1:] + "/", Mode: 0o755}}
		}
	}
}

// write streams the tree as a tar archive, sorted and without times.
func (t rootfs) write(w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(t)) {
		e := t[name]
		e.header.Format = tar.FormatPAX
		if err := tw.WriteHeader(&e.header); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := e.copyTo(tw); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return tw.Close()
}

func (e entry) copyTo(w io.Writer) error {
	if e.source == "" {
		_, err := io.WriteString(w, e.text)
		return err
	}
	f, err := os.Open(e.source)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(w, f, e.header.Size)
	return err
}
