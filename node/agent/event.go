package agent

import (
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/crsc-io/crsc/status"
)

// component is by what name events are signed.
const component = "crsc"

// maxMessage is the longest message that the API takes, in bytes.
const maxMessage = 1024

// event is the part of core/v1.Event that we fill.
// https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
type event struct {
	APIVersion     string    `json:"apiVersion"`
	Kind           string    `json:"kind"`
	Metadata       metadata  `json:"metadata"`
	InvolvedObject reference `json:"involvedObject"`
	Reason         string    `json:"reason"`
	Message        string    `json:"message"`
	Type           string    `json:"type"`
	FirstTimestamp time.Time `json:"firstTimestamp"`
	LastTimestamp  time.Time `json:"lastTimestamp"`
	Count          int       `json:"count"`
	Source         source    `json:"source"`
}

type metadata struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

type reference struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
	FieldPath  string `json:"fieldPath"`
}

type source struct {
	Component string `json:"component"`
	Host      string `json:"host"`
}

// newEvent makes an event about a container. Equal identities give equal names.
func newEvent(s *status.Status, node, kind, reason, message, identity string, at time.Time) event {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strings.Join([]string{s.ID, reason, identity}, "\x00")))
	name := s.Pod.Name
	if len(name) > 200 { // names of objects have at most 253 characters
		name = strings.TrimRight(name[:200], "-.")
	}
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage-3], "") + "..."
	}
	at = at.UTC().Truncate(time.Second)
	return event{
		APIVersion: "v1", Kind: "Event",
		Metadata: metadata{Name: fmt.Sprintf("%s.%016x", name, h.Sum64()), Namespace: s.Pod.Namespace},
		InvolvedObject: reference{
			APIVersion: "v1", Kind: "Pod", Namespace: s.Pod.Namespace, Name: s.Pod.Name, UID: s.Pod.UID,
			FieldPath: "spec.containers{" + s.Pod.Container + "}",
		},
		Reason: reason, Message: message, Type: kind, FirstTimestamp: at, LastTimestamp: at, Count: 1,
		Source: source{Component: component, Host: node},
	}
}

// eventsOf lists what a status tells. Recoveries from before since are old news.
func eventsOf(s *status.Status, node string, since time.Time) []event {
	if s.Pod == nil {
		return nil
	}
	var out []event
	switch {
	case s.Protected:
		out = append(out, newEvent(s, node, "Normal", "Protected", "crashes of container "+s.Pod.Container+" are hidden from now on", "", s.Updated))
	case s.Reason != "" && s.Phase != "stopped":
		out = append(out, newEvent(s, node, "Warning", "Unprotected", s.Reason, s.Reason, s.Updated))
	}
	if u := s.Unproxied; u != nil && len(u.Connections) > 0 {
		out = append(out, newEvent(s, node, "Warning", "Unproxied", fmt.Sprintf("container %s has connections that do not go through the proxy, which a crash ends: %d, the first %s",
			s.Pod.Container, u.Count, u.Connections[0]), "", s.Updated))
	}
	if s.RestoredFrom != "" {
		out = append(out, newEvent(s, node, "Normal", "Resumed", "container "+s.Pod.Container+" goes on from "+s.RestoredFrom, "", s.Updated))
	}
	if s.NotResumed != "" {
		out = append(out, newEvent(s, node, "Warning", "NotResumed", "container "+s.Pod.Container+" begins anew: "+s.NotResumed, "", s.Updated))
	}
	for _, r := range s.Recoveries {
		if r.Time.Before(since) {
			continue
		}
		out = append(out, newEvent(s, node, "Normal", "Recovered", recovered(s.Pod.Container, r), r.Time.Format(time.RFC3339Nano), r.Time))
	}
	return out
}

// recovered says what happened in one recovery.
func recovered(container string, r status.Recovery) string {
	text := fmt.Sprintf("container %s: %s was hidden in %.0f ms: restored checkpoint %d, replayed %d records, kept %d connections",
		container, r.Cause, r.TotalMS, r.Checkpoint, r.Records, r.Connections-r.Reset)
	if r.Checkpoint == 0 {
		text = fmt.Sprintf("container %s: %s was hidden in %.0f ms: started again, replayed %d records, kept %d connections",
			container, r.Cause, r.TotalMS, r.Records, r.Connections-r.Reset)
	}
	if r.Reset > 0 {
		text += fmt.Sprintf("; %d connections were reset, since the application answered differently", r.Reset)
	}
	return text
}
