package netproxy

import "context"

// OpenedFrom lists the open connections whose number is at least first, which
// is the order in which they were accepted. It waits for a replay to end.
//
// Errors: ErrClosed, the context's.
func (p *Proxy) OpenedFrom(ctx context.Context, first uint32) ([]uint32, error) {
	var ids []uint32
	err := p.do(ctx, "list connections", func() error {
		for _, c := range p.slots {
			if c != nil && c.id >= first && !c.ghost() {
				ids = append(ids, c.id)
			}
		}
		return nil
	})
	return ids, err
}
