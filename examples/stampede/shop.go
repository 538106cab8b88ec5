package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/firstcome/firstcome/examples/shop/app"
)

// stopTime is how long the shop in this process may finish its work.
const stopTime = 15 * time.Second

// startShop starts the shop in this process, on free ports.
func startShop(ctx context.Context, cfg config, out io.Writer) (url string, stop func(context.Context) error, err error) {
	c := app.Defaults()
	c.Addr, c.Admin = "127.0.0.1:0", "127.0.0.1:0"
	c.SKU, c.Stock, c.Redis, c.DB = cfg.sku, cfg.stock, cfg.redis, cfg.db
	if cfg.broker != "" {
		c.Broker = cfg.broker
	}
	shop, err := app.Start(ctx, c, out)
	if err != nil {
		return "", nil, fmt.Errorf("start the shop: %w", err)
	}
	return shop.URL(), func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		if err := shop.Stop(ctx); err != nil {
			return fmt.Errorf("stop the shop: %w", err)
		}
		return nil
	}, nil
}
