package sqlledger_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite"

	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/sqlledger"
)

// Two buyers hold the same last ticket, as after a store that lost its memory.
// The ledger sells it once.
func Example() {
	if err := sellTwice(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// ada has the ticket
	// bob is paid back
}

func sellTwice(ctx context.Context) error {
	db, err := openMigrated(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	ledger, err := sqlledger.New(db, "sqlite", nil)
	if err != nil {
		return err
	}
	if _, _, _, err := ledger.Open(ctx, stock.Pool{SKU: "ticket", Total: 1}); err != nil {
		return err
	}
	for _, buyer := range []string{"ada", "bob"} {
		hold := stock.Hold{ // what Reserve answers
			ID:  stock.NewID("ticket", buyer, [16]byte{1}),
			SKU: "ticket", Quantity: 1, State: stock.Held, Expires: time.Now().Add(time.Minute), Epoch: 1,
		}
		err := ledger.InTx(ctx, func(tx *sql.Tx) error { // the order
			_, err := ledger.Place(ctx, tx, hold, buyer)
			return err // beside your own INSERT
		})
		if err != nil {
			return err
		}
		err = ledger.InTx(ctx, func(tx *sql.Tx) error { // paid
			return ledger.Sell(ctx, tx, hold.ID)
		})
		switch {
		case err == nil:
			fmt.Println(buyer, "has the ticket")
		case errors.Is(err, stock.ErrLedger):
			fmt.Println(buyer, "is paid back")
		default:
			return err
		}
	}
	return nil
}

// openMigrated opens a fresh database and makes the tables with goose, in a
// version table of their own.
func openMigrated(ctx context.Context) (*sql.DB, error) {
	dir, err := os.MkdirTemp("", "sqlledger")
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "shop.db")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		return nil, err
	}
	files, err := sqlledger.Migrations("sqlite")
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithTableName("firstcome_stock_version"))
	if err != nil {
		return nil, err
	}
	_, err = provider.Up(ctx)
	return db, err
}
