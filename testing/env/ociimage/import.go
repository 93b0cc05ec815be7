package ociimage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/crsc-io/crsc/testing/env"
)

// Ref is the name that an image has in containerd.
func Ref(name string) string { return "localhost/crsc-test/" + name + ":latest" }

// Import makes sure that the environment, which is up, has the image, and
// returns its name. Built archives are kept in the cache.
func Import(ctx context.Context, e *env.Env, name string) (ref string, err error) {
	r, err := lookup(name)
	if err != nil {
		return "", err
	}
	ref = Ref(name)
	file, want, err := archived(ref, r)
	if err != nil {
		return "", err
	}
	have, err := e.Ctr(ctx, "images", "ls", "name=="+ref)
	if err != nil {
		return "", err
	}
	if strings.Contains(have, want.String()) {
		return ref, nil
	}
	_, err = e.Ctr(ctx, "images", "import", "--local", file)
	return ref, err
}

// Archive builds an image, or finds it in the cache, and returns the tar file
// to import and the name that the image has in it.
func Archive(name string) (file, ref string, err error) {
	r, err := lookup(name)
	if err != nil {
		return "", "", err
	}
	file, _, err = archived(Ref(name), r)
	return file, Ref(name), err
}

// Image is one that is not in the table of images, made of programs that the
// caller has built.
type Image struct {
	Name, Ref  string // of the archive in the cache; in containerd
	Entrypoint []string
	User       string            // uid:gid; default 0:0
	Programs   map[string]string // path in the image to file on the host; their libraries come along
}

// Archive builds the image, or finds it in the cache, and returns the tar file.
func (i Image) Archive() (file string, err error) {
	r := recipe{name: i.Name, entrypoint: i.Entrypoint, user: i.User, workDir: "/", programs: i.Programs}
	if r.user == "" {
		r.user = "0:0"
	}
	file, _, err = archived(i.Ref, r)
	return file, err
}

func archived(ref string, r recipe) (file string, d digest.Digest, err error) {
	tree, err := build(r)
	if err != nil {
		return "", "", fmt.Errorf("image %s: %w", r.name, err)
	}
	if file, d, err = cached(filepath.Join(env.CacheDir(), "images"), ref, r, tree); err != nil {
		err = fmt.Errorf("image %s: %w", r.name, err)
	}
	return file, d, err
}

func lookup(name string) (recipe, error) {
	for _, r := range recipes() {
		if r.name == name {
			return r, nil
		}
	}
	return recipe{}, fmt.Errorf("%w: %q (there are %s)", ErrUnknown, name, Names())
}

// meta is what is remembered of a cached archive.
type meta struct {
	Key    string
	Digest digest.Digest
}

// cached returns an archive and the digest of its manifest, from dir or newly
// built. Files appear there only by rename, so that several may build at once;
// the metadata names the key, and comes last.
func cached(dir, ref string, r recipe, tree rootfs) (string, digest.Digest, error) {
	k, err := key(r, tree)
	if err != nil {
		return "", "", err
	}
	file := filepath.Join(dir, r.name+"-"+k+".tar")
	note := filepath.Join(dir, r.name+".json")
	var m meta
	data, err := os.ReadFile(note)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", "", err
	}
	if err == nil && json.Unmarshal(data, &m) == nil && m.Key == k {
		if _, err := os.Stat(file); err == nil {
			return file, m.Digest, nil
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", "", err
	}
	m.Key = k
	err = replace(file, func(f *os.File) (err error) {
		m.Digest, err = archive(f, ref, r, tree)
		return err
	})
	if err != nil {
		return "", "", err
	}
	err = replace(note, func(f *os.File) error { return json.NewEncoder(f).Encode(m) })
	return file, m.Digest, errors.Join(err, forgetOthers(dir, r.name, file))
}

// replace writes a file under another name and renames it.
func replace(name string, write func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails after the rename, as it should
	err = errors.Join(write(f), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// forgetOthers removes archives of the same image that are out of date.
func forgetOthers(dir, name, keep string) error {
	old, err := filepath.Glob(filepath.Join(dir, name+"-*.tar"))
	for _, f := range old {
		if f != keep {
			err = errors.Join(err, os.Remove(f))
		}
	}
	return err
}
