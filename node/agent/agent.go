package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crsc-io/crsc/control"
)

// Label is the label of nodes that have crsc; the RuntimeClass selects it.
const Label = "crsc.io/installed"

// every is how often the status of the containers is looked at.
const every = time.Second

// news is the age up to which a recovery is told by an agent that has just
// started; Kubernetes itself keeps events for an hour.
const news = 10 * time.Minute

// Options of Run.
type Options struct {
	// Node is the name of the node.
	Node string
	// StateDir is the state_dir of the node file, as this program sees it.
	StateDir string
	// Log takes one line per thing that went wrong.
	Log func(format string, args ...any)
}

// Run labels the node and sends Events until ctx ends. It goes on when the API
// server can't be reached, and sends later what could not be sent.
func Run(ctx context.Context, o Options) error {
	c, err := inCluster()
	if err != nil {
		return err
	}
	return run(ctx, c, o)
}

// Retire takes the label off the node.
func Retire(ctx context.Context, node string) error {
	c, err := inCluster()
	if err != nil {
		return err
	}
	return c.label(ctx, node, Label, nil)
}

func run(ctx context.Context, c *client, o Options) error {
	yes := "true"
	f := follower{Options: o, client: c, since: time.Now().Add(-news), sent: map[string]time.Time{}}
	labelled := false
	for {
		if !labelled {
			err := c.label(ctx, o.Node, Label, &yes)
			if labelled = err == nil; !labelled {
				o.Log("label the node: %v", err)
			}
		}
		f.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
	}
}

// follower remembers which events have been sent.
type follower struct {
	Options
	client *client
	since  time.Time
	sent   map[string]time.Time // by name: when the event was last found in a status
	fault  string               // what the last look could not read
}

// look asks for the status of all containers and sends what is new.
func (f *follower) look(ctx context.Context) {
	list, err := control.List(ctx, f.StateDir)
	fault := ""
	if err != nil {
		fault = err.Error()
	}
	if fault != "" && fault != f.fault { // the next look is in a second
		f.Log("%s", fault)
	}
	f.fault = fault
	now := time.Now()
	for _, s := range list {
		for _, e := range eventsOf(s, f.Node, f.since) {
			key := e.Metadata.Namespace + "/" + e.Metadata.Name
			if _, ok := f.sent[key]; ok || f.send(ctx, e) {
				f.sent[key] = now
			}
		}
	}
	for key, seen := range f.sent {
		if now.Sub(seen) > time.Minute {
			delete(f.sent, key) // the container is gone
		}
	}
}

// send reports whether the event need not be sent again.
func (f *follower) send(ctx context.Context, e event) bool {
	err := f.client.create(ctx, e)
	if err == nil || errors.Is(err, errExists) {
		return true
	}
	f.Log("event on pod %s/%s: %v", e.Metadata.Namespace, e.InvolvedObject.Name, err)
	var r *refusal
	return errors.As(err, &r) && r.final() // such as a namespace that is being deleted
}

// Check says whether the options can work.
func (o Options) Check() error {
	if o.Node == "" {
		return fmt.Errorf("the name of the node is missing: set --node or NODE_NAME")
	}
	return nil
}
