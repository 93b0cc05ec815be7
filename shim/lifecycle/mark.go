package lifecycle

// StdioMark is how far the standard streams of a container had come at one
// instant, the cut of a checkpoint. A restore of that checkpoint takes it to
// drop the output that comes a second time.
type StdioMark struct {
	outputs   [2]*meterMark // stdout, stderr; nil where there is none
	in        *input
	inWritten int64 // bytes
}

// of is nil-safe.
func (m *StdioMark) of(stream int) *meterMark {
	if m == nil {
		return nil
	}
	return m.outputs[stream]
}

// ContinueStdio returns a mark of a point before the container began: since then
// another container, whose output this one goes on with, has written stdout and
// stderr. nil, which Restore takes as well, if the streams do not pass the shim.
func (c *Container) ContinueStdio(stdout, stderr Swallow) *StdioMark {
	m := c.MarkStdio()
	if m == nil {
		return nil
	}
	m.outputs[0].continues(stdout)
	m.outputs[1].continues(stderr)
	return m
}

// Since returns what has been written to stdout and stderr since the mark: what
// a restore of it would drop.
func (m *StdioMark) Since() (stdout, stderr Swallow) {
	return m.outputs[0].written(), m.outputs[1].written()
}

// continues says what had been written since the mark before the stream began.
func (k *meterMark) continues(s Swallow) {
	if k == nil {
		return
	}
	k.meter.mu.Lock()
	defer k.meter.mu.Unlock()
	k.active, k.since = true, s
}

func (k *meterMark) written() Swallow {
	if k == nil {
		return Swallow{}
	}
	k.meter.mu.Lock()
	defer k.meter.mu.Unlock()
	return k.since
}

// StdinAdvanced says that the container was given input on stdin after the
// mark. Such input can't be replayed.
func (m *StdioMark) StdinAdvanced() bool {
	return m.in != nil && m.in.written() != m.inWritten
}

// Release forgets the mark. It must not be used for a restore afterwards. A
// nil mark is ignored.
func (m *StdioMark) Release() {
	if m == nil {
		return
	}
	for _, k := range m.outputs {
		if k != nil {
			k.release()
		}
	}
}
