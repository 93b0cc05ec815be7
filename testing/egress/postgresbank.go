package egress

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/jackc/pgx/v5"
)

// postgresBin is where Debian's package has the server, which does not run as root:
// it does as postgresUser.
const (
	postgresBin  = "/usr/lib/postgresql/15/bin"
	postgresUser = 65534
)

// postgresBank is a PostgreSQL with a row for each charge.
type postgresBank struct {
	*server
	db *pgx.Conn
}

func openPostgresBank(ctx context.Context, dir, path string, addr netip.Addr) (bank, error) {
	data := filepath.Join(dir, "bank")
	if err := initPostgres(ctx, data); err != nil {
		return nil, err
	}
	b := &postgresBank{}
	ready := func(ctx context.Context, s *server) error {
		config, err := pgx.ParseConfig(fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", s.target))
		if err != nil {
			return err
		}
		config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dialer.Dial(ctx, s.target) }
		if b.db, err = pgx.ConnectConfig(ctx, config); err != nil {
			return err
		}
		_, err = b.db.Exec(ctx, `CREATE TABLE charges (id text PRIMARY KEY, n int NOT NULL)`)
		return err
	}
	var err error
	b.server, err = serve(ctx, path, addr, ready, "setpriv", fmt.Sprintf("--reuid=%d", postgresUser), "--clear-groups",
		filepath.Join(postgresBin, "postgres"), "-D", data, "-h", addr.String(), "-p", fmt.Sprint(bankPort),
		"-c", "unix_socket_directories=", "-c", "fsync=off")
	if err != nil {
		return nil, err
	}
	return b, nil
}

// initPostgres makes a database in which everybody is believed.
func initPostgres(ctx context.Context, data string) error {
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	if err := os.Chown(data, postgresUser, postgresUser); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "setpriv", fmt.Sprintf("--reuid=%d", postgresUser), "--clear-groups",
		filepath.Join(postgresBin, "initdb"), "-D", data, "--auth=trust", "--username=postgres", "--no-sync")
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	f, err := os.OpenFile(filepath.Join(data, "pg_hba.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString("host all all all trust\n")
	return err
}

// Charges implements bank.
func (b *postgresBank) Charges(ctx context.Context) (map[string]int, int, error) {
	rows, err := b.db.Query(ctx, `SELECT id, n FROM charges`)
	if err != nil {
		return nil, 0, err
	}
	charges := map[string]int{}
	var id string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&id, &n}, func() error {
		charges[id] = n
		return nil
	}); err != nil {
		return nil, 0, err
	}
	var sessions int
	err = b.db.QueryRow(ctx, `SELECT sessions FROM pg_stat_database WHERE datname = 'postgres'`).Scan(&sessions)
	return charges, sessions, err
}

// Close implements bank.
func (b *postgresBank) Close() error {
	_ = b.db.Close(context.Background()) // it only asks
	return b.server.Close()
}
