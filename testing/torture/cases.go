package torture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// tool is one test program of the field and the server it needs.
type tool struct {
	name    string
	image   string
	args    []string // of the server instead of the image's command
	program bool     // the server of this package is mounted as /app
	port    uint16
	// run returns what the tool found, without anything that depends on speed.
	// With long, it takes some seconds at least, so that the server can be killed
	// meanwhile.
	run func(ctx context.Context, r *runner) (string, error)
	// noKills: not with kills. nghttpd compresses the time of day into its answers,
	// and interleaves streams as sockets take them; the rest of net-http's
	// conversations are cut into other pieces a second time.
	noKills bool
	// calm: the tool itself says when kills may begin (strike).
	calm bool
}

func tools() []tool {
	return []tool{
		{name: "redis-benchmark", image: "redis", port: 6379, run: redisBenchmark},
		{name: "wrk", image: "nginx", port: 80, run: wrk},
		{name: "h2load", image: "nghttpd", port: 8080, run: h2load, noKills: true},
		{name: "h2load-go", image: "busybox", args: []string{"/app"}, program: true, port: 8080, run: h2loadInTurn},
		{name: "net-http", image: "busybox", args: []string{"/app"}, program: true, port: 8080, run: web, noKills: true},
		{name: "websocket", image: "busybox", args: []string{"/app"}, program: true, port: 8080, run: webSockets},
		{name: "iperf3", image: "iperf3", port: 5201, run: iperf},
		{name: "pgbench", image: "postgresql", port: 5432, run: pgbench, calm: true},
	}
}

// redisBenchmark runs its whole list of commands.
func redisBenchmark(ctx context.Context, r *runner) (string, error) {
	n := "1000"
	if r.long {
		n = "6000"
	}
	out, err := r.tool(ctx, "redis-benchmark", "-h", r.ip, "-n", n, "-c", "20", "-P", "2", "-r", "1000", "--csv")
	if err != nil {
		return out, err
	}
	var names []string
	for line := range strings.Lines(out) {
		if name, _, ok := strings.Cut(strings.TrimPrefix(line, `"`), `","`); ok && name != "test" {
			names = append(names, name)
		}
	}
	if len(names) < 15 {
		return out, errors.New("redis-benchmark reported too few commands")
	}
	return strings.Join(names, "\n"), nil
}

// wrk complains of errors only.
func wrk(ctx context.Context, r *runner) (string, error) {
	lasts := "-d3s"
	if r.long {
		lasts = "-d12s"
	}
	out, err := r.tool(ctx, "wrk", "-t2", "-c20", "--timeout", "20s", lasts, "http://"+r.addr(80)+"/index.html")
	if err != nil {
		return out, err
	}
	if !regexp.MustCompile(`(?m)^\s+[1-9]\d* requests in`).MatchString(out) {
		return out, errors.New("wrk made no requests")
	}
	return strings.Join(regexp.MustCompile(`(?m)^\s+(Socket errors|Non-2xx).*$`).FindAllString(out, -1), "\n") + "served", nil
}

var h2loadLines = regexp.MustCompile(`(?m)^(requests:|status codes:).*$`)
var h2loadData = regexp.MustCompile(`\((\d+)\) data`)

// h2load speaks HTTP/2 with many streams in each connection.
func h2load(ctx context.Context, r *runner) (string, error) {
	return h2loadWith(ctx, r, "20000", "-c", "10", "-m", "10")
}

// h2loadInTurn has one stream at a time in each connection, and windows that are
// never full: the server then says the same a second time.
func h2loadInTurn(ctx context.Context, r *runner) (string, error) {
	n := "2000"
	if r.long {
		n = "30000"
	}
	return h2loadWith(ctx, r, n, "-c", "10", "-m", "1", "-w", "30", "-W", "30")
}

func h2loadWith(ctx context.Context, r *runner, n string, flags ...string) (string, error) {
	out, err := r.tool(ctx, "h2load", append([]string{"-n", n, "http://" + r.addr(8080) + "/blob"}, flags...)...)
	if err != nil {
		return out, err
	}
	lines := append(h2loadLines.FindAllString(out, -1), h2loadData.FindString(out))
	if len(lines) != 3 || !strings.Contains(lines[0], n+" succeeded") {
		return out, errors.New("h2load had errors")
	}
	return strings.Join(lines, "\n"), nil
}

// iperf sends a fixed amount in one and in several connections, both ways.
func iperf(ctx context.Context, r *runner) (string, error) {
	var said []string
	ways := [][]string{{}, {"--reverse"}, {"--parallel", "4"}, {"--length", "100", "--bytes", "200K"}, {"--no-delay", "--window", "8K", "--bytes", "2M"}}
	if r.long {
		slowly := []string{"--bytes", "24M", "--bitrate", "32M"} // six seconds
		ways = [][]string{slowly, append([]string{"--reverse"}, slowly...)}
	}
	for _, flags := range ways {
		args := append([]string{"--client", r.ip, "--json", "--bytes", "32M"}, flags...)
		var sent int64
		err := errors.New("not run")
		// The server takes one client at a time, who does not wait for it to be
		// done; the connection that found out whether it serves counts as one.
		for try := 0; err != nil && try < 20; try++ {
			if sent, err = iperfOnce(ctx, r, args); err != nil {
				time.Sleep(200 * time.Millisecond)
			}
		}
		if err != nil {
			return strings.Join(said, "\n"), err
		}
		// The last blocks of several streams depend on who is first.
		said = append(said, fmt.Sprintf("%v: %d MB sent", flags, sent/1_000_000))
	}
	return strings.Join(said, "\n"), nil
}

func iperfOnce(ctx context.Context, r *runner, args []string) (sent int64, err error) {
	out, err := r.tool(ctx, "iperf3", args...)
	if err != nil {
		return 0, err
	}
	var report struct {
		End struct {
			Sent struct {
				Bytes int64 `json:"bytes"`
			} `json:"sum_sent"`
		} `json:"end"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return 0, err
	}
	if report.Error != "" {
		return 0, errors.New(report.Error)
	}
	return report.End.Sent.Bytes, nil
}

// pgbench runs transactions and counts them in the database.
func pgbench(ctx context.Context, r *runner) (string, error) {
	login := []string{"-h", r.ip, "-U", "postgres"}
	// Its port is open before it lets anybody in.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		out, err := r.tool(ctx, "psql", append(login, "-tA", "-c", "select 1", "postgres")...)
		if err == nil {
			break
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return out, err
		}
	}
	if out, err := r.tool(ctx, "pgbench", append(login, "--initialize", "--quiet", "postgres")...); err != nil {
		return out, err
	}
	flags := []string{"--no-vacuum", "-c", "8", "-j", "2", "-t", "100"}
	if r.killed {
		flags = append(flags, "--rate", "60") // thirteen seconds
	}
	// With its connections open: a session begins with a random key.
	calmed := r.strike(ctx, 3*time.Second)
	out, err := r.tool(ctx, "pgbench", append(append(login, flags...), "postgres")...)
	if err = errors.Join(err, calmed()); err != nil {
		return out, err
	}
	lines := regexp.MustCompile(`(?m)^number of (transactions actually processed|failed transactions).*$`).FindAllString(out, -1)
	counted, err := r.tool(ctx, "psql", append(login, "-tA", "-c",
		"select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts) from pgbench_history", "postgres")...)
	return strings.Join(append(lines, counted), "\n"), err
}
