package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver
)

const chargeOnce = `INSERT INTO charges AS c (id, n) VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET n = c.n + 1 RETURNING id`

func openPostgres(target string, l limits) (charge, error) {
	db, err := sql.Open("pgx", fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", target))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(l.most)
	if l.idle > 0 {
		db.SetMaxIdleConns(l.idle)
	}
	return func(ctx context.Context, id string) (said string, err error) {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return "", err
		}
		if err := tx.QueryRowContext(ctx, chargeOnce, id).Scan(&said); err != nil {
			return "", errors.Join(err, tx.Rollback())
		}
		return said, tx.Commit()
	}, nil
}
