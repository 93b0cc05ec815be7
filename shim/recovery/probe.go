package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/crsc-io/crsc/criu"
)

// probeFile keeps what CRIU was found to be able to: asking takes as long as
// starting a container. It holds for one binary and one boot of the host.
const probeFile = "criu.json"

// kerndatFile is what CRIU knows of the kernel. It is written with probeFile.
func (g *guard) kerndatFile() string { return filepath.Join(g.cfg.StateDir, "criu.kdat") }

type probed struct {
	Key      string        `json:"key"`
	Features criu.Features `json:"features"`
}

// findCRIU finds a CRIU that can do the work.
func (g *guard) findCRIU(ctx context.Context) (string, error) {
	path, err := criu.Find(g.cfg.CRIU)
	if err != nil {
		return "", unprotected("%v", err)
	}
	f, err := g.features(ctx, path)
	if err != nil {
		return "", unprotected("%v", err)
	}
	if len(f.Missing) > 0 {
		return "", unprotected("%s", f)
	}
	g.tracksMemory, g.patchedCRIU = f.MemTrack, f.Patched
	return path, nil
}

func (g *guard) features(ctx context.Context, path string) (criu.Features, error) {
	file := filepath.Join(g.cfg.StateDir, probeFile)
	key, err := probeKey(path)
	if err != nil {
		return criu.Features{}, err
	}
	var p probed
	if b, err := os.ReadFile(file); err == nil && json.Unmarshal(b, &p) == nil && p.Key == key {
		if _, err := os.Lstat(g.kerndatFile()); err == nil {
			return p.Features, nil
		}
	}
	p.Key = key
	if err := mkdirPrivate(g.cfg.StateDir); err != nil {
		return criu.Features{}, err
	}
	if p.Features, err = criu.Probe(ctx, criu.ProbeOptions{Path: path, Kerndat: g.kerndatFile(), Start: startUnderReaper}); err != nil {
		return criu.Features{}, err
	}
	if len(p.Features.Missing) > 0 {
		return p.Features, nil // it may be put right: ask again next time
	}
	b, err := json.Marshal(p)
	if err != nil {
		return criu.Features{}, err
	}
	tmp := fmt.Sprintf("%s.%d", file, os.Getpid())
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return criu.Features{}, err
	}
	return p.Features, os.Rename(tmp, file)
}

// probeKey changes with the binary and with the kernel.
func probeKey(path string) (string, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %d %d %s", path, fi.Size(), fi.ModTime().UnixNano(), strings.TrimSpace(string(boot))), nil
}
