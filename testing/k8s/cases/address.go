package cases

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/crsc-io/crsc/testing/k8s/cluster"
)

// boundToPod is an application that listens at its pod's address only.
const boundToPod = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: probed}
spec:
  serviceName: probed
  selector: {matchLabels: {app: probed}}
  template:
    metadata:
      labels: {app: probed}
      annotations: {crsc.io/checkpoint-restore: "true", crsc.io/checkpoint-interval: 2s, crsc.io/restore-across-pods: "true"}
    spec:
      runtimeClassName: crsc
      terminationGracePeriodSeconds: 10
      containers:
      - name: app
        image: ` + probedImage + `
        imagePullPolicy: IfNotPresent
        env: [{name: BIND, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: probed}
spec:
  selector: {app: probed}
  ports: [{name: http, port: 8080}]
`

// podAddress: an application that has bound its sockets to the address of its
// pod goes on in the next one, which has another. It is reached at that; its
// connections end as if clients and servers had gone.
func podAddress(t *T) {
	ns := t.namespace()
	t.apply(ns, boundToPod)
	server := t.listen()
	p := t.only(ns, "app=probed")
	p.protected("app")
	seen := []string{p.ip}
	for i := range 3 {
		n := p.count()
		t.check(n == 4*i+1, "generation %d: the count is %d", i, n)
		client := p.converse("hello")
		t.check(p.get("/dial?to="+server.Addr().String()) == "ok\n", "the application can't connect")
		from := server.accepted(t)
		t.check(from == p.ip, "generation %d: the server sees %s, the pod's address is %s", i, from, p.ip)
		t.check(strings.HasPrefix(p.get("/conversations"), "2 open;"), "conversations: %s", p.get("/conversations"))
		t.worst("recovery_ms", p.kill("app"))
		t.check(p.count() == n+1, "a crash was not hidden")
		t.check(talk(client, "again") == nil, "a client has noticed the crash")
		p.protected("app")

		next := t.successor(p, "app=probed")
		t.check(next.count() == n+2, "generation %d does not go on: %s", i+1, t.events(ns, "NotResumed"))
		t.check(!slices.Contains(seen, next.ip), "the pod has got the address %s again", next.ip)
		next.service(ns, n+3)
		next.ended(i + 1)
		if i == 2 { // at the address of the first pod
			t.check(next.get("/listen?port=7171") == "ok\n", "the application can't bind its former address again")
			t.must(next.converseAt("7171", "later").Close())
		}
		t.unreachable(p.ip)
		client.Close()
		seen = append(seen, next.ip)
		next.protected("app")
		p = next
	}
	t.check(p.restarts("app") == "0", "restart count is %s", p.restarts("app"))
	t.awaitEvents(ns, "Resumed", 3)
}

// ended waits until the application has seen the ends of its conversations of so
// many generations, each in order.
func (p *pod) ended(generations int) {
	p.t.await(func(context.Context) error {
		got := p.get("/conversations")
		in, out := strings.Count(got, "incoming: end"), strings.Count(got, "outgoing: end")
		if !strings.HasPrefix(got, "0 open;") || in != generations || out != generations {
			return fmt.Errorf("after %d pods: conversations: %s", generations, got)
		}
		return nil
	})
}

// successor deletes the pod and waits for the next one of its name.
func (t *T) successor(p *pod, label string) *pod {
	uid := p.field(".metadata.uid")
	t.kubectl("delete", "-n", p.ns, "pod", p.name, "--timeout=50s")
	next := t.only(p.ns, label)
	t.check(next.field(".metadata.uid") != uid, "the pod was not replaced")
	return next
}

// service asks for the count through the Service.
func (p *pod) service(ns string, want int) {
	through := *p
	through.ip = p.t.field(ns, "service/probed", ".spec.clusterIP")
	p.t.drained(through.ip + ":8080")
	n := through.count()
	p.t.check(n == want, "the count through the Service is %d, not %d", n, want)
}

// drained waits until an address of a Service takes connections.
func (t *T) drained(addr string) {
	t.await(func(ctx context.Context) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// converse opens a connection that is echoed.
func (p *pod) converse(line string) net.Conn { return p.converseAt("7070", line) }

func (p *pod) converseAt(port, line string) net.Conn {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(p.ip, port), patience)
	p.t.must(err)
	p.t.must(talk(c, line))
	return c
}

func talk(c net.Conn, line string) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(c, line); err != nil {
		return err
	}
	got, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && strings.TrimSpace(got) != line {
		err = fmt.Errorf("%q comes back as %q", line, got)
	}
	return err
}

// server takes connections of pods, on the node.
type server struct {
	net.Listener
	from chan string
}

func (t *T) listen() *server {
	var lc net.ListenConfig
	l, err := lc.Listen(t.ctx, "tcp", net.JoinHostPort(cluster.NodeIP, "0"))
	t.must(err)
	s := &server{l, make(chan string, 16)}
	t.cleanup(func(context.Context) error { return l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.cleanup(func(context.Context) error { _ = c.Close(); return nil })
			from, err := netip.ParseAddrPort(c.RemoteAddr().String())
			if err != nil {
				return
			}
			s.from <- from.Addr().String()
		}
	}()
	return s
}

// accepted is where the next connection came from.
func (s *server) accepted(t *T) string {
	select {
	case from := <-s.from:
		return from
	case <-time.After(patience):
		t.fail("no connection has come to %s", s.Addr())
		return ""
	}
}

// unreachable: an address that is nobody's any more is not answered for.
func (t *T) unreachable(ip string) {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(ip, "8080"), time.Second)
	if err == nil {
		err = errors.Join(c.Close(), fmt.Errorf("somebody answers for %s, which was the address of the pod before", ip))
		t.must(err)
	}
}
