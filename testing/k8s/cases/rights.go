package cases

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/crsc-io/crsc/testing/k8s/cluster"
)

// leastRights: whoever takes the agent's credentials can do what it does and
// nothing else.
func leastRights(t *T) {
	agent := t.kubectl("get", "pods", "-n", "crsc-system", "-l", "app.kubernetes.io/name=crsc-node", "-o", "jsonpath={.items[0].metadata.name} {.items[0].metadata.uid}")
	name, uid, _ := strings.Cut(agent, " ")
	token := t.kubectl("create", "token", "crsc-node", "-n", "crsc-system", "--bound-object-kind=Pod", "--bound-object-name="+name, "--bound-object-uid="+uid)
	unbound := t.kubectl("create", "token", "crsc-node", "-n", "crsc-system")
	as := t.requests()
	const node = "/api/v1/nodes/" + cluster.NodeName
	event := `{"apiVersion":"v1","kind":"Event","metadata":{"generateName":"x","namespace":"default"},"involvedObject":{"kind":"Pod","namespace":"default","name":"x"},"reason":"Test"}`
	for _, r := range []request{
		{http.MethodPatch, node, `{"metadata":{"labels":{"crsc.io/installed":"true"}}}`},
		{http.MethodPost, "/api/v1/namespaces/default/events?dryRun=All", event},
	} {
		code, text := as(token, r)
		t.check(code < 300, "%s %s: %d %s", r.method, r.path, code, text)
	}
	denied := []request{
		{http.MethodPatch, node, `{"metadata":{"labels":{"crsc.io/installed":"true","x":"y"}}}`},
		{http.MethodPatch, node, `{"metadata":{"labels":{"kubernetes.io/os":null}}}`},
		{http.MethodPatch, node, `{"metadata":{"annotations":{"x":"y"}}}`},
		{http.MethodPatch, node, `{"metadata":{"finalizers":["example.org/x"]}}`},
		{http.MethodPatch, node, `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Namespace","name":"default","uid":"1"}]}}`},
		{http.MethodPatch, node, `{"spec":{"unschedulable":true}}`},
		{http.MethodPatch, node + "/status", `{"status":{"conditions":null}}`},
		{http.MethodGet, node, ""},
		{http.MethodDelete, node, ""},
		{http.MethodGet, "/api/v1/secrets", ""},
		{http.MethodGet, "/api/v1/pods", ""},
		{http.MethodGet, "/api/v1/events", ""},
		{http.MethodPost, "/api/v1/namespaces/default/pods", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"containers":[{"name":"x","image":"x"}]}}`},
	}
	for _, r := range denied {
		code, text := as(token, r)
		t.check(code == http.StatusForbidden || code == http.StatusUnprocessableEntity, "%s %s %s: %d %s", r.method, r.path, r.body, code, text)
	}
	code, text := as(unbound, request{http.MethodPatch, node, `{"metadata":{"labels":{"crsc.io/installed":"false"}}}`})
	t.check(code == http.StatusUnprocessableEntity && strings.Contains(text, "its own node"), "the label of another's node: %d %s", code, text)
	t.figures["denied"] = float64(len(denied) + 1)
}

type request struct{ method, path, body string }

// requests returns a client of the API server for any token.
func (t *T) requests() func(token string, r request) (int, string) {
	file := t.kubectl("config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster.certificate-authority}")
	ca, err := os.ReadFile(file)
	t.must(err)
	pool := x509.NewCertPool()
	t.check(pool.AppendCertsFromPEM(ca), "no certificate in %s", file)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}, Timeout: 20 * time.Second}
	base := fmt.Sprintf("https://%s:6443", cluster.NodeIP)
	return func(token string, r request) (int, string) {
		q, err := http.NewRequestWithContext(t.ctx, r.method, base+r.path, strings.NewReader(r.body))
		t.must(err)
		q.Header.Set("Authorization", "Bearer "+token)
		q.Header.Set("Content-Type", "application/json")
		if r.method == http.MethodPatch {
			q.Header.Set("Content-Type", "application/merge-patch+json")
		}
		answer, err := client.Do(q)
		t.must(err)
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		t.must(err)
		return answer.StatusCode, string(b)
	}
}
