package recovery

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestFarewell: several requests to stop share one checkpoint, a kill ends it,
// and no signal is delayed beyond the limit.
func TestFarewell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f farewell
		var made atomic.Int32
		slow := func(ctx context.Context) {
			made.Add(1)
			<-ctx.Done()
		}
		begun := time.Now()
		limited, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for range 3 {
			go f.do(limited, slow)
		}
		synctest.Wait()
		f.do(limited, slow)
		require.Equal(t, time.Second, time.Since(begun))
		synctest.Wait()
		require.EqualValues(t, 1, made.Load())

		begun = time.Now()
		go func() {
			time.Sleep(100 * time.Millisecond)
			f.stop()
		}()
		f.do(t.Context(), slow)
		require.Equal(t, 100*time.Millisecond, time.Since(begun))
		f.stop()
		f.do(t.Context(), func(context.Context) {})
	})
}
