package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"
)

// run is one whole run: the shop, the crowd, the books.
type run struct {
	cfg      config
	name     string // part of buyers and keys: each run is another crowd
	stdout   io.Writer
	stderr   io.Writer
	progress *progress
}

func newRun(cfg config, stdout, stderr io.Writer) (*run, error) {
	var name [4]byte
	if _, err := rand.Read(name[:]); err != nil {
		return nil, err
	}
	return &run{
		cfg: cfg, name: hex.EncodeToString(name[:]), stdout: stdout, stderr: stderr,
		progress: newProgress(stderr, cfg.quiet || cfg.json),
	}, nil
}

// errTime ends a run that takes too long.
var errTime = errors.New("-timeout reached")

// do runs and reports. When ctx ends in mid-run, it reports what it has.
func (r *run) do(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.cfg.timeout, errTime)
	defer cancel()
	defer r.progress.done()
	shop, stop, err := r.shop(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop(ctx)) }()
	if err := needFiles(r.files()); err != nil {
		return err
	}
	found := findings{cfg: r.cfg, run: r.name, url: shop.base.String()}
	if r.cfg.baseline {
		if found.baseline, err = r.bare(ctx); err != nil {
			return fmt.Errorf("baseline: %w", err)
		}
	}
	if err := r.stampede(ctx, shop, &found); err != nil {
		return err
	}
	if err := found.write(r.stdout); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if !found.verdict.OK {
		return errAudit
	}
	return nil
}

// shop finds the shop under load, or starts it in this process.
func (r *run) shop(ctx context.Context) (target, func(context.Context) error, error) {
	if r.cfg.url != "" {
		t, err := parseTarget(r.cfg.url)
		if err == nil && !r.cfg.remote {
			err = t.local(ctx)
		}
		return t, func(context.Context) error { return nil }, err
	}
	out := r.stderr
	if r.cfg.quiet || r.cfg.json {
		out = io.Discard
	}
	url, stop, err := startShop(ctx, r.cfg, out)
	if err != nil {
		return target{}, nil, err
	}
	t, err := parseTarget(url)
	if err != nil {
		return target{}, nil, errors.Join(err, stop(ctx))
	}
	return t, stop, nil
}

// files is how many files this process opens: each connection has two ends, and
// a shop in this process holds the other one. Some are kept for the rest.
func (r *run) files() uint64 {
	n := r.cfg.conns
	if r.cfg.url == "" {
		n *= 2
	}
	return uint64(n + 256) //nolint:gosec // bounded by maxConns
}

// bare sends the same crowd to the bare handler. It runs where the shop does,
// in this process or in another, so that both share the machine with the
// generator alike.
func (r *run) bare(ctx context.Context) (*outcome, error) {
	start := startBareChild
	if r.cfg.url == "" {
		start = func(context.Context) (string, func(), error) { return startBare() }
	}
	url, stop, err := start(ctx)
	if err != nil {
		return nil, err
	}
	defer stop()
	t, err := parseTarget(url)
	if err != nil {
		return nil, err
	}
	_, out, err := r.crowd(ctx, "bare handler", t)
	if err == nil && out.interrupted {
		err = fmt.Errorf("cut short: %w", context.Cause(ctx))
	}
	return out, err
}

// crowd opens the connections, rings the bell and waits for the last answer.
func (r *run) crowd(ctx context.Context, name string, t target) (*crowd, *outcome, error) {
	c, err := newCrowd(r.cfg, t, r.name)
	if err != nil {
		return nil, nil, err
	}
	r.progress.update("%s: opening %d connections", name, r.cfg.conns)
	out, err := c.run(ctx, func(c *crowd) func() { return r.progress.watch(name, c) })
	return c, &out, err
}

// stampede is the run itself, from the first look into the books to the last.
func (r *run) stampede(ctx context.Context, shop target, found *findings) error {
	auditor := newAuditor(shop)
	defer auditor.close()
	// Orders of an earlier crowd would be taken for this one's.
	before := settle(ctx, auditor, r.cfg.settle, func(books) bool { return true }, r.settling)
	if before.err != nil {
		return shop.explainDial(before.err)
	}
	if !before.settled {
		return fmt.Errorf("the shop still has %d orders of before under way, try again when they are done", before.books.Orders.Held)
	}
	c, out, err := r.crowd(ctx, "stampede", shop)
	if err != nil {
		return err
	}
	found.outcome, found.tally = out, &c.tally
	evidence := evidence{
		before: before.books, told: c.book.sum(),
		allHeld: c.tally.final[kindAllHeld].Load(), unexpected: c.tally.unexpected(),
	}
	r.audit(ctx, auditor, &evidence, c.book.orders(), found)
	return nil
}

// lastLook bounds the audit after a run that was cut short.
const lastLook = 3 * time.Second

// audit waits for the orders to settle, looks each of them up, and judges.
func (r *run) audit(ctx context.Context, a *auditor, e *evidence, orders map[int]string, found *findings) {
	fine := func(b books) bool { return b.OK }
	s := settle(ctx, a, r.cfg.settle, fine, r.settling)
	if ctx.Err() != nil {
		e.cutShort = fmt.Sprintf("cut short: %v", context.Cause(ctx))
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), 2*lastLook)
		defer cancel()
		s = settle(ctx, a, lastLook, fine, r.settling)
	}
	e.after, e.settled, e.auditErr = s.books, s.settled, s.err
	if s.err == nil {
		r.progress.update("looking up %d orders", len(orders))
		e.lookup = a.lookUp(ctx, r.name, r.cfg.sku, orders)
	}
	found.settling, found.evidence, found.verdict = s.took, *e, judge(*e)
	r.progress.done()
}

func (r *run) settling(b books) {
	if b.settled() {
		return
	}
	r.progress.update("settling: %d units held, %d of %d events handled", b.Stock.Held, b.Events.Handled, b.Events.Written)
}
