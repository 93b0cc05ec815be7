package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

const metricsPort = 4443

// metricsAPI registers the metrics server, which runs beside the other
// components and not in a pod.
const metricsAPI = `
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system}
spec:
  ports: [{name: https, port: 443, targetPort: %[2]d}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: metrics-server, namespace: kube-system, labels: {kubernetes.io/service-name: metrics-server}}
addressType: IPv4
endpoints: [{addresses: [%[1]s], conditions: {ready: true}}]
ports: [{name: https, port: %[2]d}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  group: metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {name: metrics-server, namespace: kube-system}
`

// StartMetrics starts the metrics server, which collects what kubectl top shows
// every ten seconds, the shortest that it can. StopMetrics must be called:
// namespaces cannot be deleted while a registered server does not answer.
func (c *Cluster) StartMetrics(ctx context.Context) error {
	if _, err := c.launch("metrics-server", "--kubeconfig="+c.kubeconfig(), "--authentication-kubeconfig="+c.kubeconfig(),
		"--authorization-kubeconfig="+c.kubeconfig(), "--secure-port="+strconv.Itoa(metricsPort), "--cert-dir="+filepath.Join(c.dir, "metrics"),
		"--kubelet-insecure-tls", "--kubelet-preferred-address-types=InternalIP", "--metric-resolution=10s", "--kubelet-request-timeout=8s"); err != nil {
		return err
	}
	if err := c.Apply(ctx, fmt.Sprintf(metricsAPI, NodeIP, metricsPort)); err != nil {
		return err
	}
	return await(ctx, readyTimeout, func(ctx context.Context) error {
		out, err := c.Kubectl(ctx, "get", "apiservice", "v1beta1.metrics.k8s.io", "-o", `jsonpath={.status.conditions[?(@.type=="Available")]}`)
		if err == nil && !strings.Contains(out, `"status":"True"`) {
			err = fmt.Errorf("metrics-server: %s", out)
		}
		return err
	})
}

// StopMetrics unregisters the metrics server. Its process ends with the cluster.
func (c *Cluster) StopMetrics(ctx context.Context) error {
	_, err := c.Kubectl(ctx, "delete", "apiservice", "v1beta1.metrics.k8s.io")
	return err
}
