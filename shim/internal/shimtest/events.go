package shimtest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Event is one event as `ctr events` prints it.
type Event struct {
	Topic  string
	Fields map[string]any
}

// Events are those that a daemon published since Events was called.
type Events struct {
	t    testing.TB
	stop func()

	mu   sync.Mutex // guards list
	list []Event
}

// Events follows the daemon's events until the test ends.
func (d *Daemon) Events() *Events {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := d.Command(ctx, "events")
	out, err := cmd.StdoutPipe()
	d.must(err)
	d.must(cmd.Start())
	e := &Events{t: d.t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			e.add(lines.Text())
		}
	}()
	e.stop = sync.OnceFunc(func() {
		cancel()
		<-done
		_ = cmd.Wait()
	})
	d.t.Cleanup(e.stop)
	// ctr says nothing when it has subscribed: an event of our own tells.
	probe := 0
	Eventually(d.t, "subscribed to events", func() bool {
		probe++
		_, _ = d.TryCtr("image", "label", Image, fmt.Sprintf("probe=%d", probe))
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.list) > 0
	})
	return e
}

// line is "DATE TIME ZONE ZONE NAMESPACE TOPIC JSON".
var line = regexp.MustCompile(`(/[a-z]+/[a-z-]+) (\{.*\})$`)

func (e *Events) add(text string) {
	m := line.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return
	}
	ev := Event{Topic: m[1]}
	if err := json.Unmarshal([]byte(m[2]), &ev.Fields); err != nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
}

// Of returns the task events of a container so far.
func (e *Events) Of(id string) []Event {
	e.mu.Lock()
	defer e.mu.Unlock()
	var of []Event
	for _, ev := range e.list {
		if strings.HasPrefix(ev.Topic, "/tasks/") && ev.Fields["container_id"] == id {
			of = append(of, ev)
		}
	}
	return of
}

// settleTime is how long after an event others may come that belong before it:
// the daemon publishes its own and the shims' concurrently.
const settleTime = time.Second

// Await waits for an event of the topic, and for those that come
// with it, and returns all of the container. The caller checks what it needs.
func (e *Events) Await(id, topic string) []Event {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if slices.ContainsFunc(e.Of(id), func(ev Event) bool { return ev.Topic == topic }) {
			break
		}
	}
	time.Sleep(settleTime)
	return e.Of(id)
}
