package app

import (
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// Role says which part of the work a process takes.
type Role string

// The roles.
const (
	RoleAll    Role = "all"
	RoleWeb    Role = "web"
	RoleRelay  Role = "relay"
	RoleWorker Role = "worker"
)

// Config is what a shop is started with.
type Config struct {
	Addr            string        // public address
	Admin           string        // admin address: health and metrics
	Redis           string        // redis:// or rediss:// URL; empty: embedded
	DB              string        // postgres:// or sqlite:// URL; empty: embedded
	Broker          string        // redis, kafka (embedded) or kafka://host:port,...
	SKU             string        // what is sold
	Stock           int64         // units for sale
	Limit           int64         // units per buyer, 0 for no limit
	Hold            time.Duration // how long a unit is held for payment
	Rate            int64         // requests per second per buyer
	PaymentFailures float64       // share of payments refused, 0 to 1
	Unpaid          string        // what becomes of an order that is unpaid when its hold ends: lose or keep
	Attempts        int           // failed attempts that make a dead letter of an event
	Reconcile       time.Duration // pause between two looks for overdue orders
	Patience        time.Duration // beyond the end of its hold, until an order is overdue
	Role            Role
}

// Defaults returns the shop that runs with nothing installed.
func Defaults() Config {
	return Config{
		Addr: "127.0.0.1:8080", Admin: "127.0.0.1:8081", Broker: "redis",
		SKU: "ticket", Stock: 1000, Limit: 1, Hold: 5 * time.Minute, Rate: 20, Role: RoleAll,
		Unpaid: "lose", Attempts: 10, Reconcile: 30 * time.Second, Patience: time.Minute,
	}
}

// Flags binds c to the flags of a command line.
func (c *Config) Flags(fs *flag.FlagSet) {
	fs.StringVar(&c.Addr, "addr", c.Addr, "public address")
	fs.StringVar(&c.Admin, "admin", c.Admin, "admin address: /healthz, /readyz, /metrics, /audit, /letters; keep it private")
	fs.StringVar(&c.Redis, "redis", c.Redis, "redis://… or rediss://…; embedded where empty")
	fs.StringVar(&c.DB, "db", c.DB, "postgres://… or sqlite:///path; embedded where empty")
	fs.StringVar(&c.Broker, "broker", c.Broker, "redis | kafka | kafka://host:port,…; kafka alone is embedded")
	fs.StringVar(&c.SKU, "sku", c.SKU, "what is sold")
	fs.Int64Var(&c.Stock, "stock", c.Stock, "units for sale")
	fs.Int64Var(&c.Limit, "limit", c.Limit, "units per buyer, 0 for no limit")
	fs.DurationVar(&c.Hold, "hold", c.Hold, "how long a unit is held for payment")
	fs.Int64Var(&c.Rate, "rate", c.Rate, "requests per second per buyer")
	fs.Float64Var(&c.PaymentFailures, "payment-failures", c.PaymentFailures, "share of payments refused, 0 to 1")
	fs.StringVar(&c.Unpaid, "unpaid", c.Unpaid, "lose | keep: the unit of an order that is unpaid when its hold ends")
	fs.IntVar(&c.Attempts, "attempts", c.Attempts, "failed attempts that make a dead letter of an event")
	fs.DurationVar(&c.Reconcile, "reconcile", c.Reconcile, "pause between two looks for overdue orders")
	fs.DurationVar(&c.Patience, "patience", c.Patience, "how long after the end of its hold an order is overdue")
	fs.Func("role", "all | web | relay | worker (default all)", func(s string) error {
		c.Role = Role(s)
		return nil
	})
}

// pool is the sale as the stock module knows it.
func (c *Config) pool() stock.Pool {
	p := stock.Pool{SKU: c.SKU, Total: c.Stock, Limit: c.Limit, Hold: c.Hold}
	if c.Unpaid == "keep" {
		p.Unpaid = stock.KeepUnits
	}
	return p
}

// Validate reports the first flag that is wrong.
func (c *Config) Validate() error {
	if _, err := c.pool().Normalize(); err != nil {
		return fmt.Errorf("-sku, -stock, -limit or -hold: %w", err)
	}
	switch {
	case c.Rate < 1 || c.Rate > 1_000_000:
		return fmt.Errorf("-rate is %d, want 1 to 1,000,000", c.Rate)
	case c.PaymentFailures < 0 || c.PaymentFailures > 1 || c.PaymentFailures != c.PaymentFailures:
		return fmt.Errorf("-payment-failures is %v, want 0 to 1", c.PaymentFailures)
	case c.Unpaid != "lose" && c.Unpaid != "keep":
		return fmt.Errorf("-unpaid is %q, want lose or keep", c.Unpaid)
	case c.Attempts < 1:
		return fmt.Errorf("-attempts is %d, want at least 1", c.Attempts)
	case c.Reconcile < 100*time.Millisecond:
		return fmt.Errorf("-reconcile is %v, want at least 100ms", c.Reconcile)
	case c.Patience < time.Second:
		return fmt.Errorf("-patience is %v, want at least 1s: clocks differ", c.Patience)
	case c.Addr == "" || c.Admin == "":
		return errors.New("-addr and -admin must not be empty")
	case c.Broker != "redis" && c.Broker != "kafka" && !strings.HasPrefix(c.Broker, "kafka://"):
		return errors.New("-broker is neither redis, kafka nor kafka://host:port,…")
	}
	switch c.Role {
	case RoleAll:
	case RoleWeb, RoleRelay, RoleWorker:
		if c.Redis == "" || c.DB == "" || c.Broker == "kafka" {
			return fmt.Errorf("-role %s shares its servers with other processes, so -redis, -db and -broker can't be embedded", c.Role)
		}
	default:
		return fmt.Errorf("-role is %q, want all, web, relay or worker", c.Role)
	}
	return nil
}

func (c *Config) has(r Role) bool { return c.Role == RoleAll || c.Role == r }
