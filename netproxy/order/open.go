package order

import (
	"fmt"

	"github.com/crsc-io/crsc/netproxy/redirect"
)

// Open starts the source that o asks for. With Auto, reason says why it is the
// serial one, and is empty otherwise. ErrOptions; ErrUnsupported only with
// Tracepoint. The caller closes the Source.
func Open(o Options) (src Source, reason string, err error) {
	if err := o.defaultsAndValidate(redirect.MarkOwn, redirect.MarkMask, redirect.LegPriority); err != nil {
		return nil, "", err
	}
	if o.Kind != Serial {
		src, err := openTracepoint(o)
		if err == nil {
			return src, "", nil
		}
		err = fmt.Errorf("%w: %w", ErrUnsupported, err)
		if o.Kind == Tracepoint {
			return nil, "", err
		}
		reason = err.Error()
	}
	s, err := openSerial(o.NetNS)
	if err != nil {
		return nil, "", err
	}
	return s, reason, nil
}
