package control

import (
	"context"
	"path/filepath"
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
// Errors: those of status.List.
func List(ctx context.Context, stateDir string) ([]*status.Status, error) {
	list, err := status.List(stateDir)
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	for i, s := range list {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, askFor)
			defer cancel()
			shim := Client{Dir: filepath.Join(stateDir, s.Namespace, s.ID)}
			if now, err := shim.Status(ctx); err == nil && now != nil {
				list[i] = now
			}
		})
	}
	wg.Wait()
	return list, nil
}
