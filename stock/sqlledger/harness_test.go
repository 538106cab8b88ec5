package sqlledger

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
)

func TestMain(m *testing.M) {
	_ = mysql.SetLogger(silent{}) // a killed server makes it talk; it refuses nil only
	testenv.Main(m)
}

type silent struct{}

func (silent) Print(...any) {}

// env is one database with the ledger's tables and an orders table of the
// application.
type env struct {
	*Ledger
	db      *sql.DB
	dialect string
	claims  uint64
}

// gooseDialects names the dialects as goose does.
var gooseDialects = map[string]goose.Dialect{
	"postgres": goose.DialectPostgres, "mysql": goose.DialectMySQL, "sqlite": goose.DialectSQLite3,
}

// openDB opens an empty database of the dialect.
func openDB(t testing.TB, dialect string) *sql.DB {
	t.Helper()
	switch dialect {
	case "postgres":
		return testenv.Postgres(t).DB(t)
	case "mysql":
		return testenv.MariaDB(t).DB(t)
	default:
		return openSQLite(t, filepath.Join(t.TempDir(), "ledger.db"))
	}
}

// openSQLite opens a database that stands in for a server.
func openSQLite(t testing.TB, file string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(20000)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// newProvider prepares the package's migrations as an application would.
func newProvider(t testing.TB, db *sql.DB, dialect string) *goose.Provider {
	t.Helper()
	files, err := Migrations(dialect)
	if err != nil {
		t.Fatal(err)
	}
	provider, err := goose.NewProvider(gooseDialects[dialect], db, files,
		goose.WithTableName("firstcome_stock_version"), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		t.Fatal(err)
	}
	return provider
}

// newEnv makes the tables in an empty database and a ledger on it.
func newEnv(t testing.TB, db *sql.DB, dialect string, opts *Options) *env {
	t.Helper()
	if _, err := newProvider(t, db, dialect).Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	const orders = `CREATE TABLE orders (id CHAR(58) PRIMARY KEY, state VARCHAR(9) NOT NULL)`
	if _, err := db.ExecContext(t.Context(), orders); err != nil {
		t.Fatal(err)
	}
	return onEnv(t, db, dialect, opts)
}

// onEnv makes a ledger on tables that stand. By default Expire is patient, so
// that a busy machine does not leave it undecided.
func onEnv(t testing.TB, db *sql.DB, dialect string, opts *Options) *env {
	t.Helper()
	o := Options{}
	if opts != nil {
		o = *opts
	}
	if o.ExpireWait == 0 {
		o.ExpireWait = 30 * time.Second
	}
	ledger, err := New(db, dialect, &o)
	if err != nil {
		t.Fatal(err)
	}
	return &env{Ledger: ledger, db: db, dialect: dialect}
}

// each runs a test on every database, side by side.
func each(t *testing.T, opts *Options, f func(t *testing.T, e *env)) {
	t.Parallel()
	on(t, []string{"sqlite", "postgres", "mysql"}, opts, f)
}

// eachServer runs a test on the databases in which transactions run side by
// side, which SQLite's don't.
func eachServer(t *testing.T, opts *Options, f func(t *testing.T, e *env)) {
	t.Parallel()
	on(t, []string{"postgres", "mysql"}, opts, f)
}

func on(t *testing.T, dialects []string, opts *Options, f func(t *testing.T, e *env)) {
	for _, dialect := range dialects {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			f(t, newEnv(t, openDB(t, dialect), dialect, opts))
		})
	}
}

// open opens a pool of total units.
func (e *env) open(t testing.TB, sku string, total int64) {
	t.Helper()
	e.openPool(t, stock.Pool{SKU: sku, Total: total})
}

func (e *env) openPool(t testing.TB, p stock.Pool) {
	t.Helper()
	if _, _, _, err := e.Open(t.Context(), p); err != nil {
		t.Fatal(err)
	}
}

// hold is what a store might have answered: epoch 1, an ID never used before.
func (e *env) hold(sku, buyer string, quantity int64) stock.Hold {
	e.claims++
	return holdOf(sku, buyer, e.claims, quantity)
}

func holdOf(sku, buyer string, claim uint64, quantity int64) stock.Hold {
	var c [16]byte
	binary.BigEndian.PutUint64(c[:], claim)
	return stock.Hold{
		ID: stock.NewID(sku, buyer, c), SKU: sku, Quantity: quantity, State: stock.Held,
		Expires: time.UnixMilli(1_900_000_000_000), Epoch: 1,
	}
}

func line(sku string, quantity int64) stock.Line { return stock.Line{SKU: sku, Quantity: quantity} }

// basket is hold for a pool with items.
func (e *env) basket(sku, buyer string, lines ...stock.Line) stock.Hold {
	hold := e.hold(sku, buyer, 0)
	hold.Lines = lines
	for _, l := range lines {
		hold.Quantity += l.Quantity
	}
	return hold
}

// openFair opens a pool of the given totals, whose items are called a, b, c…
func (e *env) openFair(t testing.TB, sku string, totals ...int64) {
	t.Helper()
	p := stock.Pool{SKU: sku}
	for i, total := range totals {
		p.Items = append(p.Items, stock.Item{SKU: string(rune('a' + i)), Total: total})
	}
	e.openPool(t, p)
}

// placedBasket commits an order of a new buyer's.
func (e *env) placedBasket(t testing.TB, sku string, lines ...stock.Line) stock.ID {
	t.Helper()
	buyer := fmt.Sprintf("buyer %d", e.claims+1)
	hold := e.basket(sku, buyer, lines...)
	if existed, err := e.place(t.Context(), hold, buyer); err != nil || existed {
		t.Fatalf("place: existed %v, %v", existed, err)
	}
	return hold.ID
}

// place commits an order of the hold, together with the application's row.
func (e *env) place(ctx context.Context, hold stock.Hold, buyer string) (existed bool, err error) {
	err = e.InTx(ctx, func(tx *sql.Tx) error {
		existed, err = e.Place(ctx, tx, hold, buyer)
		if err != nil || existed {
			return err
		}
		_, err = tx.ExecContext(ctx, e.rebind(`INSERT INTO orders (id, state) VALUES (?, 'placed')`), hold.ID.String())
		return err
	})
	return existed, err
}

// placed commits new orders and returns their IDs.
func (e *env) placed(t testing.TB, sku string, n int, quantity int64) []stock.ID {
	t.Helper()
	ids := make([]stock.ID, n)
	for i := range ids {
		buyer := fmt.Sprintf("buyer %d", e.claims+1)
		hold := e.hold(sku, buyer, quantity)
		if existed, err := e.place(t.Context(), hold, buyer); err != nil || existed {
			t.Fatalf("place: existed %v, %v", existed, err)
		}
		ids[i] = hold.ID
	}
	return ids
}

// in runs one step in a transaction of its own.
func (e *env) in(ctx context.Context, step func(tx *sql.Tx) error) error { return e.InTx(ctx, step) }

func (e *env) sellOne(ctx context.Context, id stock.ID, part ...stock.Line) error {
	return e.in(ctx, func(tx *sql.Tx) error { return e.Sell(ctx, tx, id, part...) })
}

func (e *env) cancelOne(ctx context.Context, id stock.ID) error {
	return e.in(ctx, func(tx *sql.Tx) error { return e.Cancel(ctx, tx, id) })
}

func (e *env) returnOne(ctx context.Context, id stock.ID) error {
	return e.in(ctx, func(tx *sql.Tx) error { return e.Return(ctx, tx, id) })
}

// state reads a row's state; "" where there is none.
func (e *env) state(t testing.TB, id stock.ID) state {
	t.Helper()
	r, err := e.oneRow(t.Context(), e.db, e.q.readRow, id)
	if errors.Is(err, errNoRow) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return r.state
}

// check compares each item's counters with the rows and with the total. Nobody
// may change the pool meanwhile.
func (e *env) check(ctx context.Context, sku string) error {
	terms, _, err := e.Pool(ctx, sku)
	if err != nil {
		return err
	}
	sold, err := e.soldByRows(ctx, sku)
	if err != nil {
		return err
	}
	for i := range sold {
		var counted, spread int64
		query := e.rebind(`SELECT SUM(sold), SUM(total) FROM firstcome_stock_sold WHERE sku = ? AND item = ?`)
		if err := e.db.QueryRowContext(ctx, query, sku, i).Scan(&counted, &spread); err != nil {
			return err
		}
		total := totalOf(&terms.Pool, i)
		if counted != sold[i] || counted > total || spread != total {
			return fmt.Errorf("of %d units of item %d the rows say %d are sold, the stripes %d of %d", total, i, sold[i], counted, spread)
		}
	}
	return nil
}

// soldByRows sums what the rows say is sold of each item.
func (e *env) soldByRows(ctx context.Context, sku string) (sold []int64, err error) {
	y, err := e.layout(ctx, e.db, sku)
	if err != nil {
		return nil, err
	}
	sums := tally{layout: y, held: make([]int64, y.items())}
	rows, err := e.db.QueryContext(ctx, e.rebind(`SELECT asked, released, COUNT(*), SUM(quantity - released_units)
		FROM firstcome_stock_reservation WHERE sku = ? AND state = 'sold' GROUP BY asked, released`), sku)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var r row
		var n int64
		if err := rows.Scan(&r.asked, &r.released, &n, &r.quantity); err != nil {
			return nil, err
		}
		if err := sums.addHeld(&r, n); err != nil {
			return nil, err
		}
	}
	return sums.held, rows.Err()
}

// audit is check, or the end of the test.
func (e *env) audit(t testing.TB, sku string, wantHeld, wantSold int64) {
	t.Helper()
	if err := e.check(t.Context(), sku); err != nil {
		t.Error(err)
	}
	totals, err := e.Totals(t.Context(), sku)
	if err != nil {
		t.Fatal(err)
	}
	if totals.Held != wantHeld || totals.Sold != wantSold {
		t.Errorf("held %d, sold %d; want %d and %d", totals.Held, totals.Sold, wantHeld, wantSold)
	}
}

// auditItems is audit for a pool with items: held and sold of each.
func (e *env) auditItems(t testing.TB, sku string, want ...[2]int64) {
	t.Helper()
	if err := e.check(t.Context(), sku); err != nil {
		t.Error(err)
	}
	totals, err := e.Totals(t.Context(), sku)
	if err != nil {
		t.Fatal(err)
	}
	var got [][2]int64
	var all [2]int64
	for _, item := range totals.Items {
		got = append(got, [2]int64{item.Held, item.Sold})
		all[0] += item.Held
		all[1] += item.Sold
	}
	if !slices.Equal(got, want) || all != [2]int64{totals.Held, totals.Sold} {
		t.Errorf("held and sold of each item are %v (in all %d and %d), want %v", got, totals.Held, totals.Sold, want)
	}
}

// found is the ledger's entry of one ID.
func (e *env) found(t testing.TB, sku string, id stock.ID) stock.Entry {
	t.Helper()
	entries, err := e.Find(t.Context(), sku, []stock.ID{id})
	if err != nil || len(entries) != 1 {
		t.Fatalf("find: %d entries, %v", len(entries), err)
	}
	return entries[0]
}

// wantField reports an error that is not a mismatch of the field.
func wantField(t testing.TB, what string, err error, field string) {
	t.Helper()
	var mismatch *stock.MismatchError
	if !errors.As(err, &mismatch) || mismatch.Field != field {
		t.Errorf("%s: %v, want a mismatch of %q", what, err, field)
	}
}

// wantItem reports an error that does not name the item, or is another.
func wantItem(t testing.TB, what string, err error, item string, want error) {
	t.Helper()
	var named *stock.ItemError
	if !errors.As(err, &named) || named.SKU != item || !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v of %q", what, err, want, item)
	}
}

// begin starts a transaction that the test ends itself.
func (e *env) begin(t testing.TB) *sql.Tx {
	t.Helper()
	tx, err := e.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	return tx
}

// awaitBlocked returns once n transactions of this database wait for a lock.
// Only the server knows, so it is asked again and again.
func (e *env) awaitBlocked(t testing.TB, n int) {
	t.Helper()
	for start := time.Now(); ; runtime.Gosched() {
		blocked, err := e.blocked(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if blocked >= n {
			return
		}
		if time.Since(start) > 30*time.Second {
			t.Fatalf("%d transactions wait for a lock, want %d", blocked, n)
		}
	}
}

func (e *env) blocked(ctx context.Context) (n int, err error) {
	if e.dialect == "postgres" {
		const query = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`
		return n, e.db.QueryRowContext(ctx, query).Scan(&n)
	}
	// The table innodb_trx is a cache that frequent readers keep from being
	// refreshed, so the monitor's text is read instead.
	var kind, name, status string
	if err := e.db.QueryRowContext(ctx, `SHOW ENGINE INNODB STATUS`).Scan(&kind, &name, &status); err != nil {
		return 0, err
	}
	for _, trx := range strings.Split(status, "---TRANSACTION")[1:] {
		id := regexp.MustCompile(`thread id (\d+)`).FindStringSubmatch(trx)
		if !strings.Contains(trx, "LOCK WAIT") || id == nil {
			continue
		}
		var ours int
		const query = `SELECT count(*) FROM information_schema.processlist WHERE id = ? AND db = DATABASE()`
		if err := e.db.QueryRowContext(ctx, query, id[1]).Scan(&ours); err != nil {
			return 0, err
		}
		n += ours
	}
	return n, nil
}

// wantErr reports an error that is not the one wanted; nil wants none.
func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// rebind turns a test's own statement into the dialect.
func (e *env) rebind(query string) string { return e.Ledger.dialect.Rebind(query) }
