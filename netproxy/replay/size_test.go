package replay

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/crsc-io/crsc/journal"
)

// TestManyInputs: what a long upload leaves behind is planned in time that grows with
// it and not with its square; clients wait meanwhile.
func TestManyInputs(t *testing.T) {
	const n, limit = 40_000, 15 * time.Second
	uploads := func(one, other uint32) (list []journal.Record) {
		for i := range uint64(n / 2) {
			list = append(list, input(one, i, 0, "x"), consumed(one, i+1), input(other, i, 0, "x"), consumed(other, i+1))
		}
		return list
	}
	for name, recs := range map[string]func() []journal.Record{
		"never answered": func() []journal.Record { return uploads(1, 2) },
		"answered at the end": func() []journal.Record {
			return append(append(uploads(1, 2), uploads(3, 4)...), output(1, 0, 1), output(2, 0, 1), output(3, 0, 1), output(4, 0, 1))
		},
		"not seen consumed": func() (list []journal.Record) {
			for i := range uint64(n) {
				list = append(list, input(1, i, i, "x"), output(1, i, 1))
			}
			return list
		},
	} {
		t.Run(name, func(t *testing.T) {
			list := append([]journal.Record{opened(1), opened(2), opened(3), opened(4)}, recs()...)
			begun := time.Now()
			plan, err := Build(script(list...), nil, nil)
			require.NoError(t, err)
			built := time.Since(begun)
			plan.ByAnswers()
			t.Logf("%d steps: built in %v, arranged in %v", len(plan.Steps), built, time.Since(begun)-built)
			require.GreaterOrEqual(t, len(plan.Steps), n)
			require.Less(t, time.Since(begun), limit)
		})
	}
}
