package control

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/crsc-io/crsc/status"
)

// askFor is how long a shim has to tell its status before its file is believed.
const askFor = time.Second

// List returns the status of every container below a node's state directory: as
// its shim tells it, since the file may be on a disk that can't be written, or as
// the file has it where no shim answers.
//
// Errors: those of status.Places, and one that names each file that can't be read
// and that no shim makes up for. The list is complete but for these.
func List(ctx context.Context, stateDir string) ([]*status.Status, error) {
	places, err := status.Places(stateDir)
	if err != nil {
		return nil, err
	}
	list, errs := make([]*status.Status, len(places)), make([]error, len(places))
	var wg sync.WaitGroup
	for i, p := range places {
		wg.Go(func() { list[i], errs[i] = current(ctx, p.Dir) })
	}
	wg.Wait()
	return slices.DeleteFunc(list, func(s *status.Status) bool { return s == nil }), errors.Join(errs...)
}

// current returns nil for a container that has gone.
func current(ctx context.Context, dir string) (*status.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	shim := Client{Dir: dir}
	if now, err := shim.Status(ctx); err == nil && now != nil {
		return now, nil
	}
	s, err := status.Read(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return s, err
}
