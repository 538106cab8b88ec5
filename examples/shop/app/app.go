// Package app is the example shop: a sale of one SKU, from HTTP to a charged
// order, wired by Uber Fx. Copy it and change what is yours.
package app

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"
	"go.uber.org/fx"
	"go.uber.org/fx/fxevent"

	"github.com/firstcome/firstcome/fxmodule"
	"github.com/firstcome/firstcome/idempotency"
	"github.com/firstcome/firstcome/outbox"
	"github.com/firstcome/firstcome/outbox/sqloutbox"
	"github.com/firstcome/firstcome/ratelimit"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
	"github.com/firstcome/firstcome/stock/sqlledger"
	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/sqlinbox"
)

// App is a running shop.
type App struct {
	cfg    Config
	parts  *parts
	fx     *fx.App
	public *listener
	inner  *listener
}

// Start opens the servers, the sale and the listeners of cfg's role, and
// writes to out where it listens. Started again on the same servers, it goes
// on with the same sale.
func Start(ctx context.Context, cfg Config, out io.Writer) (*App, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p, err := open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	a := &App{cfg: cfg, parts: p}
	if err := migrate(ctx, p.db); err != nil {
		return nil, errors.Join(err, p.close())
	}
	a.fx = fx.New(a.modules()...)
	if err := a.fx.Err(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	if err := a.fx.Start(ctx); err != nil {
		return nil, errors.Join(err, a.Stop(context.WithoutCancel(ctx)))
	}
	a.greet(out)
	return a, nil
}

// modules is the shop as Fx sees it: the library's modules, what they stand
// on, and the roles that this process takes.
func (a *App) modules() []fx.Option {
	options := []fx.Option{
		fx.WithLogger(func() fxevent.Logger { return &fxevent.SlogLogger{Logger: slog.New(slog.DiscardHandler)} }),
		fx.Supply(a.cfg, a.parts.db),
		fx.Provide(
			func() redis.UniversalClient { return a.parts.redis },
			func(db fxmodule.Database) orders { return orders{db.DB} },
			func(db fxmodule.Database) *provider { return &provider{db: db.DB, failures: a.cfg.PaymentFailures} },
			newAuditor,
		),
		fxmodule.Ledger(nil),
		fxmodule.Stock(redisstock.JournalOff, &redisstock.Options{AutoRebuild: true}),
		fxmodule.Outbox(nil),
		fxmodule.Inbox(nil),
		fxmodule.DeadLetters(nil),
		fx.Invoke(openSale, watchParked),
	}
	if a.cfg.has(RoleRelay) {
		options = append(options, fxmodule.Relay([]string{topicOrders}, nil), fx.Provide(a.publisher))
	}
	if a.cfg.has(RoleWorker) {
		options = append(options, a.worker())
	}
	if a.cfg.has(RoleWeb) {
		options = append(options, a.web())
	}
	return append(options, fx.Invoke(a.serveAdmin))
}

// openSale opens the pool, once: a sale that stands goes on, and one that
// Redis has lost is rebuilt from the ledger.
func openSale(lc fx.Lifecycle, cfg Config, store stock.Store) {
	lc.Append(fx.StartHook(func(ctx context.Context) error {
		_, err := store.Open(ctx, cfg.pool())
		if errors.Is(err, stock.ErrFenced) {
			_, err = store.Rebuild(ctx, cfg.SKU)
		}
		if err != nil {
			return fmt.Errorf("open the sale: %w", err)
		}
		return nil
	}))
}

type auditParams struct {
	fx.In

	Config  Config
	DB      fxmodule.Database
	Stock   stock.Store
	Ledger  stock.Ledger
	Outbox  *sqloutbox.Store
	Inbox   *sqlinbox.Inbox
	Letters worker.LetterStore
}

func newAuditor(p auditParams) *auditor {
	return &auditor{
		cfg: p.Config, db: p.DB.DB, stock: p.Stock, ledger: p.Ledger, outbox: p.Outbox, inbox: p.Inbox,
		letters: map[string]worker.LetterOperator{"worker": p.Letters, "outbox": fxmodule.ParkedLetters(p.Outbox)},
	}
}

// watchParked shows the outbox's parked messages as gauges, beside the dead
// letters.
func watchParked(lc fx.Lifecycle, sd fx.Shutdowner, o *sqloutbox.Store) error {
	m, err := worker.NewLetterMonitor(fxmodule.ParkedLetters(o), "outbox", nil)
	if err != nil {
		return err
	}
	fxmodule.Loop(lc, sd, "parked message gauges", m.Run)
	return nil
}

func (a *App) publisher(lc fx.Lifecycle) (message.Publisher, error) {
	p, err := a.parts.publisher()
	if err == nil {
		lc.Append(fx.StopHook(p.Close))
	}
	return p, err
}

func (a *App) worker() fx.Option {
	return fx.Options(
		fxmodule.Worker(&worker.Options{MaxAttempts: a.cfg.Attempts}),
		fx.Provide(
			func(lc fx.Lifecycle) (message.Subscriber, error) {
				s, err := a.parts.subscriber()
				if err == nil {
					lc.Append(fx.StopHook(s.Close))
				}
				return s, err
			},
			func(l *sqlledger.Ledger, s stock.Store, o orders, p *provider) *checkout {
				return &checkout{ledger: l, stock: s, orders: o, pay: p}
			},
		),
		fx.Invoke(
			func(w *worker.Worker, c *checkout) error {
				return worker.Handle(w, handlerName, topicOrders, c.handle)
			},
			func(lc fx.Lifecycle, sd fx.Shutdowner, c *checkout, letters worker.LetterStore, o *sqloutbox.Store) {
				r := &reconciler{
					sku: a.cfg.SKU, every: a.cfg.Reconcile, patience: a.cfg.Patience,
					ledger: c.ledger, checkout: c, letters: letters, parked: fxmodule.ParkedLetters(o),
				}
				fxmodule.Loop(lc, sd, "reconciler", r.Run)
			},
		),
	)
}

// hashKey keys the hashes of idempotency keys. A real shop keeps it secret, the
// same in its whole fleet, and never changes it; this one derives it from a
// constant so that it runs with nothing set up.
var hashKey = sha256.Sum256([]byte("firstcome example shop: not a secret"))

type webParams struct {
	fx.In

	Keeper  *idempotency.Keeper
	Limiter ratelimit.Limiter
	Stock   *redisstock.Store
	Ledger  *sqlledger.Ledger
	Outbox  *sqloutbox.Store
	Orders  orders
	Auditor *auditor
	Relay   *outbox.Relay `optional:"true"`
}

func (a *App) web() fx.Option {
	return fx.Options(
		fxmodule.Idempotency(hashKey[:], idempotency.Rerun, nil),
		fxmodule.RateLimit(nil),
		fx.Invoke(func(lc fx.Lifecycle, p webParams) {
			notify := func() {}
			if p.Relay != nil {
				notify = p.Relay.Notify
			}
			w := &web{
				cfg: a.cfg, keeper: p.Keeper, limiter: p.Limiter, stock: p.Stock, orders: p.Orders, auditor: p.Auditor,
				counter: &counter{stock: p.Stock, ledger: p.Ledger, outbox: p.Outbox, orders: p.Orders, notify: notify},
			}
			lc.Append(fx.Hook{
				OnStart: func(context.Context) (err error) {
					a.public, err = listen(a.cfg.Addr, w.handler())
					return err
				},
				OnStop: func(ctx context.Context) error { return a.public.stop(ctx) },
			})
		}),
	)
}

// drainPause is how long a stopping shop says "not ready" before it closes its
// listener, so that a load balancer sends its requests elsewhere.
const drainPause = 200 * time.Millisecond

// serveAdmin starts last and stops first: readiness is true when all else
// runs, and false before anything closes.
func (a *App) serveAdmin(lc fx.Lifecycle, audit *auditor) error {
	adm, err := newAdmin(audit, a.parts.check)
	if err != nil {
		return err
	}
	lc.Append(fx.Hook{
		OnStart: func(context.Context) (err error) {
			a.inner, err = listen(a.cfg.Admin, adm.handler())
			adm.ready.Store(err == nil)
			return err
		},
		OnStop: func(ctx context.Context) error {
			adm.ready.Store(false)
			select {
			case <-time.After(drainPause):
			case <-ctx.Done():
			}
			return nil
		},
	})
	return nil
}

// URL is where the shop sells; empty where its role is not to.
func (a *App) URL() string {
	if a.public == nil {
		return ""
	}
	return a.public.url()
}

// AdminURL is where operators look.
func (a *App) AdminURL() string { return a.inner.url() }

// Failed is told when a part of the shop has ended by itself.
func (a *App) Failed() <-chan fx.ShutdownSignal { return a.fx.Wait() }

// Stop ends the shop: not ready, no new requests, what runs may finish, then
// the servers are let go. It may be called twice.
func (a *App) Stop(ctx context.Context) error {
	err := a.fx.Stop(ctx)
	return errors.Join(err, a.inner.stop(ctx), a.parts.close())
}

// greet says where the shop listens and how to buy.
func (a *App) greet(out io.Writer) {
	if len(a.parts.embedded) > 0 {
		fmt.Fprintf(out, "Embedded, for trying only: %s.\n", strings.Join(a.parts.embedded, "; "))
	}
	fmt.Fprintf(out, "Admin: %s/healthz /readyz /metrics /audit /letters/worker /letters/outbox\n", a.AdminURL())
	if a.public == nil {
		fmt.Fprintf(out, "Role %s is running.\n", a.cfg.Role)
		return
	}
	fmt.Fprintf(out, "Selling %d × %s at %s, role %s. Buy one:\n", a.cfg.Stock, a.cfg.SKU, a.URL(), a.cfg.Role)
	fmt.Fprintf(out, "curl -i %s/orders -H 'Idempotency-Key: my-first' -H 'X-Buyer: ann' -d '{\"sku\":%q,\"quantity\":1}'\n", a.URL(), a.cfg.SKU)
}
