package cases

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/crsc-io/crsc/testing/load"
)

const redisDeployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: redis}
spec:
  selector: {matchLabels: {app: redis}}
  template:
    metadata:
      labels: {app: redis}
      annotations:
        crsc.io/checkpoint-restore: "true"
        crsc.io/checkpoint-interval: 2s
    spec:
      runtimeClassName: crsc
      containers:
      - name: redis
        image: ` + redisImage + `
        imagePullPolicy: IfNotPresent
        ports: [{containerPort: 6379}]
        readinessProbe: {exec: {command: [redis-cli, ping]}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: redis}
spec:
  selector: {app: redis}
  ports: [{port: 6379}]
`

// deployment kills a Redis of a Deployment five times under load, which comes
// through the pod's address and through the Service's.
func deployment(t *T) {
	ns := t.namespace()
	t.apply(ns, redisDeployment)
	p := t.only(ns, "app=redis")
	p.protected("redis")
	watch := p.watchReady()
	service := t.field(ns, "service/redis", ".spec.clusterIP")
	var loads []*load.Load
	for _, ip := range []string{p.ip, service} {
		loads = append(loads, t.drive(ip, 6379, 5, 500))
	}
	for range 5 {
		time.Sleep(time.Second)
		t.worst("recovery_ms", p.kill("redis"))
	}
	time.Sleep(time.Second)
	for i, l := range loads {
		r := t.finish(l)
		t.figures[fmt.Sprintf("acknowledged_%d", i)] = float64(r.Acknowledged)
		t.worst("stall_ms", r.LatencyMS.Max)
	}
	unready := watch()
	t.figures["unready_ms"] = float64(unready.Milliseconds())
	t.check(unready.Seconds()*1000 <= 5*t.figures["stall_ms"], "the pod was not ready for %v in five crashes", unready)
	t.check(p.restarts("redis") == "0", "restart count is %s", p.restarts("redis"))
}

// drive loads a Redis with so many connections and requests per second, once it
// can be reached: kube-proxy learns of a Service's endpoints after they are ready.
func (t *T) drive(ip string, port uint16, connections int, rate float64) *load.Load {
	addr, err := netip.ParseAddr(ip)
	t.must(err)
	t.await(func(ctx context.Context) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(addr, port).String())
		if err != nil {
			return err
		}
		return c.Close()
	})
	l, err := load.Start(t.ctx, load.Options{Target: netip.AddrPortFrom(addr, port), Connections: connections, Rate: rate})
	t.must(err)
	return l
}

// finish ends a load: its clients have noticed nothing but time.
func (t *T) finish(l *load.Load) load.Result {
	r, err := l.Stop(t.ctx)
	t.must(err)
	r.LongestMS = nil
	t.check(r.Clean() && r.Acknowledged > 0, "clients noticed: %+v", r)
	return r
}

// worst keeps the largest of a figure.
func (t *T) worst(name string, value float64) { t.figures[name] = max(t.figures[name], value) }

// watchReady follows whether a pod is ready; the function that it returns ends
// that and says for how long it was not.
func (p *pod) watchReady() func() time.Duration {
	done, result := make(chan struct{}), make(chan time.Duration)
	go func() {
		var unready time.Duration
		last := time.Now()
		for {
			out, err := p.t.c.Kubectl(p.t.ctx, "get", "-n", p.ns, "pod", p.name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
			now := time.Now()
			if err == nil && strings.TrimSpace(out) != "True" {
				unready += now.Sub(last)
			}
			last = now
			select {
			case <-done:
				result <- unready
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	return func() time.Duration { close(done); return <-result }
}
