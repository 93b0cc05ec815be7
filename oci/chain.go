package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// chain is what the next image of a chain builds upon.
type chain struct {
	pages []layer // layers with pages, the full one first
	bytes int64   // of all but the first
	table string  // file
}

// worn reports whether it is time for a new chain: it is long, or reading the
// image at its end would cost twice what reading a full one does.
func (c *chain) worn(longest int) bool {
	return len(c.pages) >= longest || c.bytes > c.pages[0].desc.Size
}

// keepTable writes the table of a chain's pages; the one before is removed when
// it is no longer needed.
func (p *Publisher) keepTable(t *pageTable) (string, error) {
	p.n++
	path := p.tableFile(p.n)
	if err := t.save(path); err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return path, nil
}

// dropChain makes the next image begin a chain.
func (p *Publisher) dropChain() error {
	c := p.chain
	p.chain = nil
	if c == nil {
		return nil
	}
	return os.Remove(c.table)
}

// chainFile is what a later publisher goes on from, in Options.Dir.
const chainFile = "chain.json"

// savedChain is the content of chainFile. Only this version of the program
// reads it.
type savedChain struct {
	Pages []savedLayer `json:"pages"`
	Bytes int64        `json:"bytes"`
	Table uint64       `json:"table"` // its number
	Files []savedFile  `json:"files"`
}

type savedLayer struct {
	Descriptor ocispec.Descriptor `json:"descriptor"`
	DiffID     digest.Digest      `json:"diffId"`
}

type savedFile struct {
	Key   [5]int64   `json:"key"`
	Layer savedLayer `json:"layer"`
}

// save writes down what load needs. It is not synced: after a crash of the host
// nobody goes on.
func (p *Publisher) save() error {
	s := savedChain{Bytes: p.chain.bytes, Table: p.n}
	for _, l := range p.chain.pages {
		s.Pages = append(s.Pages, savedLayer{l.desc, l.diffID})
	}
	for k, l := range p.files {
		s.Files = append(s.Files, savedFile{[5]int64{k.dev, k.inode, k.size, k.birth, k.modified}, savedLayer{l.desc, l.diffID}})
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	path := filepath.Join(p.o.Dir, chainFile)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// load reads what save wrote.
func (p *Publisher) load() error {
	b, err := os.ReadFile(filepath.Join(p.o.Dir, chainFile))
	if err != nil {
		return err
	}
	var s savedChain
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	c := &chain{bytes: s.Bytes, table: p.tableFile(s.Table)}
	if _, err := os.Stat(c.table); err != nil || len(s.Pages) == 0 {
		return errors.Join(errors.New("no chain"), err)
	}
	for _, l := range s.Pages {
		c.pages = append(c.pages, layer{l.Descriptor, l.DiffID})
	}
	files := map[fileKey]layer{}
	for _, f := range s.Files {
		files[fileKey{f.Key[0], f.Key[1], f.Key[2], f.Key[3], f.Key[4]}] = layer{f.Layer.Descriptor, f.Layer.DiffID}
	}
	p.chain, p.files, p.n = c, files, s.Table
	return p.sweep()
}

// sweep removes what a publisher that was killed left beside its chain.
func (p *Publisher) sweep() error {
	list, err := os.ReadDir(p.o.Dir)
	for _, e := range list {
		path := filepath.Join(p.o.Dir, e.Name())
		if e.Name() != chainFile && path != p.chain.table {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

func (p *Publisher) tableFile(n uint64) string {
	return filepath.Join(p.o.Dir, fmt.Sprintf("pages.%d", n))
}
