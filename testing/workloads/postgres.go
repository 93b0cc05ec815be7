package workloads

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// postgresBin is where Debian's package has the clients.
const postgresBin = "/usr/lib/postgresql/15/bin"

// postgresClients are a pgbench whose transactions each add a row and count up,
// and a psql that asks. Both keep their connections: the secret key that a
// session begins with is another one each time.
type postgresClients struct {
	site   *site
	bench  *exec.Cmd
	output *bytes.Buffer
	ended  chan error
	judge  *exec.Cmd
	ask    io.WriteCloser
	told   *bufio.Reader
}

// postgresScript is one transaction; two tables have to agree.
const postgresScript = `BEGIN;
INSERT INTO rows (client, i) SELECT :client_id, n + 1 FROM counts WHERE client = :client_id;
UPDATE counts SET n = n + 1 WHERE client = :client_id;
COMMIT;
`

const postgresTables = `
CREATE TABLE rows (client int, i int, PRIMARY KEY (client, i));
CREATE TABLE counts (client int PRIMARY KEY, n int NOT NULL);
INSERT INTO counts SELECT g, 0 FROM generate_series(0, 3) g;`

func startPostgres(ctx context.Context, s *site) (clients, error) {
	p := &postgresClients{site: s, output: &bytes.Buffer{}, ended: make(chan error, 1)}
	if err := p.startJudge(ctx); err != nil {
		return nil, err
	}
	// What psql complains about comes in place of an answer.
	if got, err := p.query(postgresTables + "SELECT 'ready';"); err != nil || got != "ready" {
		return nil, errors.Join(fmt.Errorf("psql: %s", got), err, p.endJudge())
	}
	script := filepath.Join(s.env.Dir, "pgbench.sql")
	if err := os.WriteFile(script, []byte(postgresScript), 0o644); err != nil {
		return nil, errors.Join(err, p.endJudge())
	}
	p.bench = p.command(ctx, "pgbench", "-n", "-c", "4", "-j", "1", "-R", "200", "-T", "36000", "-f", script, "postgres")
	p.bench.Stdout, p.bench.Stderr = p.output, p.output
	if err := p.bench.Start(); err != nil {
		return nil, errors.Join(err, p.endJudge())
	}
	go func() { p.ended <- p.bench.Wait() }()
	for {
		n, err := p.query("SELECT count(*) FROM counts WHERE n > 0;")
		if err == nil && n == "4" {
			return p, nil // all clients have sent something
		}
		if err == nil {
			err = pause(ctx, 50*time.Millisecond)
		}
		if err != nil {
			kill := p.bench.Process.Kill()
			<-p.ended
			return nil, errors.Join(err, kill, p.endJudge())
		}
	}
}

func (p *postgresClients) startJudge(ctx context.Context) (err error) {
	p.judge = p.command(ctx, "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "postgres")
	if p.ask, err = p.judge.StdinPipe(); err != nil {
		return err
	}
	out, err := p.judge.StdoutPipe()
	if err != nil {
		return err
	}
	p.judge.Stderr = p.judge.Stdout
	p.told = bufio.NewReader(out)
	return p.judge.Start()
}

func (p *postgresClients) endJudge() error {
	err := p.ask.Close()
	return errors.Join(err, p.judge.Wait())
}

// query returns the one line that a query answers.
func (p *postgresClients) query(text string) (string, error) {
	if _, err := io.WriteString(p.ask, text+"\n"); err != nil {
		return "", err
	}
	line, err := p.told.ReadString('\n')
	if err != nil {
		err = fmt.Errorf("psql has ended: %w", err)
	}
	return strings.TrimSpace(line), err
}

// command is a client of the service, in the clients' network namespace.
func (p *postgresClients) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	all := append([]string{"--net=" + p.site.env.Client().Path, filepath.Join(postgresBin, name),
		"-h", p.site.pod.IP4.String(), "-U", "postgres"}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", all...)
	cmd.Env = append(os.Environ(), "PGSSLMODE=disable", "PGCONNECT_TIMEOUT=20", "LC_ALL=C")
	return cmd
}

// Check implements clients: the two tables agree, and no row is missing
// between others.
func (p *postgresClients) Check(context.Context) error {
	got, err := p.query(`SELECT count(*) FROM (SELECT client, count(*) c, max(i) m FROM rows GROUP BY client) r
		FULL JOIN counts USING (client) WHERE coalesce(c, 0) <> n OR coalesce(m, 0) <> n;`)
	if err == nil && got != "0" {
		err = fmt.Errorf("%s clients have other rows than they counted", got)
	}
	return err
}

var (
	processed = regexp.MustCompile(`number of transactions actually processed: (\d+)`)
	failed    = regexp.MustCompile(`number of failed transactions: (\d+)`)
)

// Stop implements clients.
func (p *postgresClients) Stop(context.Context) (requests, failures int, err error) {
	// pgbench ends its run at SIGALRM, like the end of its -T.
	if err := p.bench.Process.Signal(syscall.SIGALRM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, 1, err
	}
	if err := <-p.ended; err != nil {
		return 0, 1, fmt.Errorf("pgbench: %w: %.2000s", err, p.output)
	}
	requests, failures = number(processed, p.output), number(failed, p.output)
	if strings.Contains(p.output.String(), "aborted") {
		failures++
		return requests, failures, fmt.Errorf("pgbench: %.2000s", p.output)
	}
	got, err := p.query("SELECT count(*) FROM rows;")
	if err == nil && got != strconv.Itoa(requests) {
		err = fmt.Errorf("%d transactions were acknowledged, there are %s rows", requests, got)
	}
	return requests, failures, errors.Join(err, p.endJudge())
}

func number(re *regexp.Regexp, text *bytes.Buffer) int {
	m := re.FindSubmatch(text.Bytes())
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(string(m[1]))
	return n
}
