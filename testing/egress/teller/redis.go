package main

import (
	"context"

	"github.com/redis/go-redis/v9"
)

func openRedis(target string, l limits) charge {
	// A command that failed is not tried again: that it may have been carried out
	// is what is tested.
	db := redis.NewClient(&redis.Options{Addr: target, PoolSize: l.most, MaxIdleConns: l.idle, MaxRetries: -1})
	return func(ctx context.Context, id string) (string, error) {
		return id, db.Incr(ctx, id).Err()
	}
}
