package recovery

import (
	"fmt"
	"time"

	"github.com/crsc-io/crsc/config"
)

// budget counts recoveries within a moving window.
type budget struct {
	limit config.Budget
	spent []time.Time
}

// take spends one recovery.
//
// Errors: ErrBudget.
func (b *budget) take(now time.Time) error {
	if b.limit.Unlimited {
		return nil
	}
	for len(b.spent) > 0 && now.Sub(b.spent[0]) >= b.limit.Window {
		b.spent = b.spent[1:]
	}
	if len(b.spent) >= b.limit.Recoveries {
		return fmt.Errorf("%w: %d crashes within %s (%s)", ErrBudget, len(b.spent)+1, b.limit.Window, b.limit)
	}
	b.spent = append(b.spent, now)
	return nil
}
