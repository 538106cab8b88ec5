package sqldead_test

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/firstcome/firstcome/worker"
	"github.com/firstcome/firstcome/worker/sqldead"
)

// What an operator does, in any process: look, and have run again what the
// repaired handler can finish.
func ExampleStore_Requeue() {
	var (
		ctx context.Context
		db  *sql.DB // yours
	)
	dead, err := sqldead.New(db, "postgres", nil)
	if err != nil {
		return
	}
	for after := int64(0); ; {
		page, err := dead.Letters(ctx, worker.LetterQuery{State: worker.LetterDead, Class: worker.ClassPanic, After: after})
		if err != nil || len(page) == 0 {
			return
		}
		for _, l := range page {
			fmt.Println(l.Seq, l.EventID, l.Attempts, l.Age, l.Err)
			if err := dead.Requeue(ctx, l.Seq); err != nil {
				fmt.Println(err) // worker.ErrRequeued: another operator was faster
			}
			after = l.Seq
		}
	}
}
