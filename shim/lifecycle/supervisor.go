package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/pkg/sys/reaper"
	runc "github.com/containerd/go-runc"
)

// eventFlushLimit bounds how long Close waits for events to be published.
const eventFlushLimit = 3 * time.Second

// Config is what a Supervisor needs.
type Config struct {
	// Namespace is containerd's namespace of all containers. Required.
	Namespace string
	// Publisher takes the events. The supervisor closes it. Required.
	Publisher Publisher
	// Guards makes guards for new containers; nil: none is ever guarded.
	Guards GuardFactory
}

// Supervisor holds the containers of one shim process.
type Supervisor struct {
	// ctx lives as long as the supervisor and carries the namespace.
	ctx       context.Context
	cancel    context.CancelFunc
	namespace string
	guards    GuardFactory
	events    *eventQueue
	consoles  *consoles
	tracker   *tracker
	exits     chan runc.Exit
	// work counts the exit loop and the goroutines that finish exits.
	work sync.WaitGroup

	mu sync.Mutex // guards containers
	// containers has nil for an ID whose container is being created.
	containers map[string]*Container
}

// NewSupervisor starts to watch exits. The caller must have containerd's reaper
// running (shim.Run) and go-runc's Monitor set to it. Close ends it.
func NewSupervisor(ctx context.Context, cfg Config) (*Supervisor, error) {
	if cfg.Namespace == "" || cfg.Publisher == nil {
		return nil, errors.New("lifecycle: namespace and publisher are required")
	}
	consoles, err := newConsoles()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &Supervisor{
		ctx:        ctx,
		cancel:     cancel,
		namespace:  cfg.Namespace,
		guards:     cfg.Guards,
		events:     newEventQueue(ctx, cfg.Publisher),
		consoles:   consoles,
		tracker:    newTracker(),
		exits:      reaper.Default.Subscribe(),
		containers: make(map[string]*Container),
	}
	s.work.Go(s.followExits)
	return s, nil
}

// followExits passes the exits on. Nothing it calls may block: the reaper waits
// for a subscriber that does not take its exits.
func (s *Supervisor) followExits() {
	for e := range s.exits {
		exit := Exit{Pid: e.Pid, Status: e.Status, At: e.Timestamp}
		if o, ok := s.tracker.exited(exit); ok {
			o.container.exited(o.process, exit)
		}
	}
}

// Container returns the container of that ID.
//
// Errors: ErrNoContainer.
func (s *Supervisor) Container(id string) (*Container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.containers[id]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("%s: %w", id, ErrNoContainer)
}

// Empty says that the supervisor has no container, nor one being created.
func (s *Supervisor) Empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.containers) == 0
}

func (s *Supervisor) reserve(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, taken := s.containers[id]; taken {
		return fmt.Errorf("%s: %w", id, ErrContainerExists)
	}
	s.containers[id] = nil
	return nil
}

func (s *Supervisor) set(id string, c *Container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.containers[id] = c
}

func (s *Supervisor) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.containers, id)
}

// Close closes the guards of the containers that are left, publishes what is
// queued and ends the supervisor. The containers themselves are left alone.
func (s *Supervisor) Close() error {
	s.mu.Lock()
	var left []*Container
	for _, c := range s.containers {
		if c != nil {
			left = append(left, c)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, c := range left {
		if g := c.takeGuard(); g != nil {
			errs = append(errs, g.Close())
		}
	}
	s.cancel()
	reaper.Default.Unsubscribe(s.exits)
	s.work.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), eventFlushLimit)
	defer cancel()
	errs = append(errs, s.events.close(ctx), s.consoles.Close())
	return errors.Join(errs...)
}
