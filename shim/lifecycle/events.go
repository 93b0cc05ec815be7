package lifecycle

import (
	"context"
	"sync"

	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/core/runtime"
	"github.com/containerd/log"
)

// Publisher sends events to containerd.
type Publisher interface {
	events.Publisher
	Close() error
}

// eventQueue publishes events in the order in which they were sent. Sending
// never blocks: containerd may be down for as long as an upgrade takes.
type eventQueue struct {
	ctx       context.Context // carries the namespace, is never cancelled
	publisher Publisher

	mu     sync.Mutex // guards the fields below
	wake   *sync.Cond
	queued []queuedEvent
	closed bool
	done   chan struct{}
}

type queuedEvent struct {
	topic string
	event any
}

func newEventQueue(ctx context.Context, p Publisher) *eventQueue {
	q := &eventQueue{ctx: context.WithoutCancel(ctx), publisher: p, done: make(chan struct{})}
	q.wake = sync.NewCond(&q.mu)
	go q.run()
	return q
}

// send queues a task event of containerd's API.
func (q *eventQueue) send(event any) { q.publish(runtime.GetTopic(event), event) }

func (q *eventQueue) publish(topic string, event any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queued = append(q.queued, queuedEvent{topic, event})
	q.wake.Signal()
}

func (q *eventQueue) run() {
	defer close(q.done)
	for {
		q.mu.Lock()
		for len(q.queued) == 0 && !q.closed {
			q.wake.Wait()
		}
		batch := q.queued
		q.queued = nil
		q.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		for _, e := range batch {
			if err := q.publisher.Publish(q.ctx, e.topic, e.event); err != nil {
				log.G(q.ctx).WithError(err).WithField("topic", e.topic).Error("post event")
			}
		}
	}
}

// close publishes what is queued, as long as ctx lets it, and closes the
// publisher.
func (q *eventQueue) close(ctx context.Context) error {
	q.mu.Lock()
	q.closed = true
	q.wake.Signal()
	q.mu.Unlock()
	select {
	case <-q.done:
	case <-ctx.Done():
	}
	return q.publisher.Close()
}
