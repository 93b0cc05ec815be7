package criu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"google.golang.org/protobuf/proto"
)

const (
	// maxRounds of pre-dump. The first copies everything, the others what was
	// written to meanwhile.
	maxRounds = 4
	// fewPages are not worth another round: copying them takes about as long as
	// a round stops the tasks.
	fewPages = 2048
	// roundGain is the part of a round's pages that the next may have at most
	// for there to be one more: a container that writes faster does not converge.
	roundGain = 0.7
)

// Round is one pre-dump: memory that was copied ahead of the dump.
type Round struct {
	Stall time.Duration // how long tasks stood still for it
	Pages uint64        // that it copied, of 4096 bytes on amd64
}

// preDump copies memory while the tasks run, apart from a short stop for each
// round, and returns the directory of the last round, below Images; "" if there
// is none. What the dump then has to copy is what was written to since.
//
// A failure is no failure of the dump: it copies everything then.
func (d *dump) preDump(ctx context.Context, sp spawn, pid int) (parent string, err error) {
	for n := 1; n <= maxRounds; n++ {
		round, err := d.round(ctx, sp, pid, roundDir(n), parent)
		if err != nil {
			return "", errors.Join(fmt.Errorf("pre-dump, round %d: %w", n, err), removeRounds(d.Images))
		}
		parent = roundDir(n)
		d.stats.Rounds = append(d.stats.Rounds, round)
		if !anotherRound(d.stats.Rounds) {
			break
		}
	}
	return parent, nil
}

// anotherRound decides after some rounds whether one more pays.
func anotherRound(done []Round) bool {
	last := done[len(done)-1].Pages
	if last <= fewPages {
		return false
	}
	return len(done) == 1 || float64(last) <= roundGain*float64(done[len(done)-2].Pages)
}

// roundDir names the directory of a round, below that of the images.
func roundDir(n int) string { return "pre-" + strconv.Itoa(n) }

// removeRounds removes the directories of all rounds.
func removeRounds(images string) error {
	err := os.Remove(filepath.Join(images, parentLink))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	for n := 1; n <= maxRounds; n++ {
		err = errors.Join(err, os.RemoveAll(filepath.Join(images, roundDir(n))))
	}
	return err
}

func (d *dump) round(ctx context.Context, sp spawn, pid int, name, parent string) (Round, error) {
	path := filepath.Join(d.Images, name)
	if err := os.Mkdir(path, 0o700); err != nil {
		return Round{}, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return Round{}, err
	}
	defer dir.Close()
	req := d.request(pid, dir)
	req.Type = rpc.CriuReqType_SINGLE_PRE_DUMP.Enum()
	req.Opts.NotifyScripts = nil
	req.Opts.TrackMem = proto.Bool(true)
	if parent != "" {
		req.Opts.ParentImg = proto.String(filepath.Join("..", parent))
	}
	child, err := sp.run()
	if err != nil {
		return Round{}, err
	}
	if _, err := child.call(ctx, req, func(string, int, []*os.File) error { return nil }); err != nil {
		return Round{}, explain("pre-dump", filepath.Join(path, dumpLog), err)
	}
	var s DumpStats
	if err := s.load(os.DirFS(path)); err != nil {
		return Round{}, err
	}
	return Round{Stall: s.Stall(), Pages: s.Pages}, nil
}
