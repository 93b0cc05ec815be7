package egress

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// redisBank is a Redis with a counter for each charge.
type redisBank struct {
	*server
	db *redis.Client
}

func openRedisBank(ctx context.Context, path string, addr netip.Addr) (bank, error) {
	b := &redisBank{}
	ready := func(ctx context.Context, s *server) error {
		if b.db == nil {
			b.db = redis.NewClient(&redis.Options{Addr: s.target.String(), Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return s.dialer.Dial(ctx, s.target)
			}})
		}
		return b.db.Ping(ctx).Err()
	}
	var err error
	b.server, err = serve(ctx, path, addr, ready, "redis-server", "--bind", addr.String(), "--port", fmt.Sprint(bankPort),
		"--save", "", "--appendonly", "no", "--protected-mode", "no")
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Charges implements bank.
func (b *redisBank) Charges(ctx context.Context) (map[string]int, int, error) {
	charges := map[string]int{}
	keys := b.db.Scan(ctx, 0, "*", 1000).Iterator()
	var page []string
	read := func() error {
		values, err := b.db.MGet(ctx, page...).Result()
		if err != nil {
			return err
		}
		for i, v := range values {
			n, err := strconv.Atoi(fmt.Sprint(v))
			if err != nil {
				return fmt.Errorf("%s: %w", page[i], err)
			}
			charges[page[i]] = n
		}
		page = page[:0]
		return nil
	}
	for keys.Next(ctx) {
		if page = append(page, keys.Val()); len(page) == 1000 {
			if err := read(); err != nil {
				return nil, 0, err
			}
		}
	}
	if err := keys.Err(); err != nil {
		return nil, 0, err
	}
	if len(page) > 0 {
		if err := read(); err != nil {
			return nil, 0, err
		}
	}
	opened, err := b.opened(ctx)
	return charges, opened, err
}

// opened is how many connections there were, our own included.
func (b *redisBank) opened(ctx context.Context) (int, error) {
	info, err := b.db.Info(ctx, "stats").Result()
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(info, "total_connections_received:")
	number, _, _ := strings.Cut(rest, "\r\n")
	return strconv.Atoi(number)
}

// Close implements bank.
func (b *redisBank) Close() error {
	_ = b.db.Close() // it only asks
	return b.server.Close()
}
