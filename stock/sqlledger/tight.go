package sqlledger

import (
	"sync"
	"time"
)

// tightFor is how long a pool counts as tight after it was met so.
const tightFor = time.Second

// tightPools are those in which this process has lately met a stripe without
// room. To sell in one statement may keep such a stripe locked; two sales that
// each do, and then look for room elsewhere, deadlock. In a tight pool sales go
// step by step, look first, and lock in order. It is a hint: nothing but time
// is lost where it is wrong.
type tightPools struct{ until sync.Map } // pool part of IDs → time.Time

func (p *tightPools) is(pool [8]byte) bool {
	until, ok := p.until.Load(pool)
	if !ok {
		return false
	}
	if time.Now().Before(until.(time.Time)) {
		return true
	}
	p.until.CompareAndDelete(pool, until)
	return false
}

func (p *tightPools) met(pool [8]byte) { p.until.Store(pool, time.Now().Add(tightFor)) }
