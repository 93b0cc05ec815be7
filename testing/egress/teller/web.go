package main

import (
	"cmp"
	"context"
	"io"
	"net/http"
)

func openWeb(target string, l limits) charge {
	bank := &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: cmp.Or(l.idle, http.DefaultMaxIdleConnsPerHost), MaxConnsPerHost: l.most,
	}}
	return func(ctx context.Context, id string) (string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+target+"/"+id, http.NoBody)
		if err != nil {
			return "", err
		}
		res, err := bank.Do(req)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		said, err := io.ReadAll(res.Body)
		return string(said), err
	}
}
