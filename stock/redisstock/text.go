package redisstock

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/firstcome/firstcome/stock"
)

// What head.lua reads and writes, as text: terms (t), counts (m), terms as they
// were opened (i), and amounts.

const formatVersion = "1"

var errText = errors.New("malformed text")

// termsText writes terms.
func termsText(t *stock.Terms, ledger string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s,%s,%d,%d,%d,%d,%d,%d,%d;", formatVersion, ledger, t.Version, bit(t.Paused), t.Late, t.Limit,
		t.Hold.Milliseconds(), millis(t.Opens), millis(t.Closes))
	for _, item := range itemsOf(&t.Pool) {
		fmt.Fprintf(&b, "%d,%d;", item.Total, item.Limit)
	}
	if t.Adjusted != [16]byte{} {
		b.WriteString(hex.EncodeToString(t.Adjusted[:]))
	}
	return b.String()
}

// itemsOf returns the items, or the one that a pool without them is. That one
// has no limit beside the pool's.
func itemsOf(p *stock.Pool) []stock.Item {
	if len(p.Items) > 0 {
		return p.Items
	}
	return []stock.Item{{SKU: p.SKU, Total: p.Total}}
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// parseTerms reads terms over the pool as it was opened, which has the names.
func parseTerms(text string, opened *stock.Pool) (stock.Terms, error) {
	t := stock.Terms{Pool: *opened}
	parts := strings.Split(text, ";")
	head := strings.Split(parts[0], ",")
	items := itemsOf(opened)
	if len(head) != 9 || head[0] != formatVersion || len(parts) != len(items)+2 {
		return t, fmt.Errorf("redisstock: terms: %w", errText)
	}
	t.Version, t.Paused = toInt(head[2]), head[3] == "1"
	t.Late, t.Limit = stock.Late(toInt(head[4])), toInt(head[5]) //nolint:gosec // one digit
	t.Hold = time.Duration(toInt(head[6])) * time.Millisecond
	t.Opens, t.Closes = timeOf(toInt(head[7])), timeOf(toInt(head[8]))
	t.Total, t.Items = 0, nil
	for i, item := range items {
		total, limit, _ := strings.Cut(parts[i+1], ",")
		item.Total, item.Limit = toInt(total), toInt(limit)
		t.Total += item.Total
		if len(opened.Items) > 0 {
			t.Items = append(t.Items, item)
		}
	}
	last, _, _ := strings.Cut(parts[len(parts)-1], heldBack)
	if id, err := hex.DecodeString(last); err == nil {
		copy(t.Adjusted[:], id)
	}
	return t, nil
}

func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// openedText writes a pool's terms as it was opened.
func openedText(p *stock.Pool) (string, error) {
	q := *p
	q.Opens, q.Closes = q.Opens.UTC(), q.Closes.UTC() // one text for one moment
	b, err := json.Marshal(q)
	return string(b), err
}

func parseOpened(text string) (*stock.Pool, error) {
	p := new(stock.Pool)
	if err := json.Unmarshal([]byte(text), p); err != nil {
		return nil, fmt.Errorf("redisstock: opened terms: %w", err)
	}
	return p, nil
}

// count is the units of one item.
type count struct{ free, held, sold int64 }

// parseCounts reads counts.
func parseCounts(text string) (mark stock.Mark, items []count, err error) {
	parts := strings.Split(text, ";")
	head := strings.Split(parts[0], ",")
	if len(head) != 4 || len(parts) < 3 {
		return mark, nil, fmt.Errorf("redisstock: counts: %w", errText)
	}
	for _, p := range parts[1 : len(parts)-1] {
		f := strings.Split(p, ",")
		if len(f) != 3 {
			return mark, nil, fmt.Errorf("redisstock: counts: %w", errText)
		}
		items = append(items, count{toInt(f[0]), toInt(f[1]), toInt(f[2])})
	}
	return stock.Mark{Epoch: toInt(head[0]), Seq: toInt(head[1])}, items, nil
}

// levelsOf puts terms and counts together.
func levelsOf(t *stock.Terms, items []count) stock.Levels {
	l := stock.Levels{SKU: t.SKU, Paused: t.Paused, Version: t.Version}
	for i, item := range itemsOf(&t.Pool) {
		if i >= len(items) {
			break
		}
		c := items[i]
		one := stock.ItemLevels{SKU: item.SKU, Total: item.Total, Free: max(c.free, 0), Held: c.held, Sold: c.sold, Over: max(-c.free, 0)}
		l.Total, l.Free, l.Held = l.Total+one.Total, l.Free+one.Free, l.Held+one.Held
		l.Sold, l.Over = l.Sold+one.Sold, l.Over+one.Over
		if len(t.Items) > 0 {
			l.Items = append(l.Items, one)
		}
	}
	return l
}

// amountText writes units per item; zero units are not written.
func amountText(units []int64) string {
	if len(units) == 1 {
		return strconv.FormatInt(units[0], 10)
	}
	var b []byte
	for i, n := range units {
		if n == 0 {
			continue
		}
		if len(b) > 0 {
			b = append(b, '+')
		}
		b = strconv.AppendInt(b, n, 10)
		b = strconv.AppendInt(append(b, '@'), int64(i), 10)
	}
	return string(b)
}

// amount is what a reservation was made for and what was given back of it, in
// units per item.
type amount struct{ asked, back []int64 }

// parseAmount reads an amount of a pool with so many items.
func parseAmount(text string, items int) (amount, error) {
	asked, back, part := strings.Cut(text, "-")
	var a amount
	var err error
	if a.asked, err = parseUnits(asked, items); err == nil && part {
		a.back, err = parseUnits(back, items)
	}
	return a, err
}

func parseUnits(text string, items int) ([]int64, error) {
	units := make([]int64, items)
	if items == 1 {
		n, err := strconv.ParseInt(text, 10, 64)
		units[0] = n
		if err != nil {
			return nil, fmt.Errorf("redisstock: amount: %w", errText)
		}
		return units, nil
	}
	for line := range strings.SplitSeq(text, "+") {
		q, at, _ := strings.Cut(line, "@")
		n, err := strconv.ParseInt(q, 10, 64)
		i, err2 := strconv.Atoi(at)
		if err != nil || err2 != nil || i < 0 || i >= items {
			return nil, fmt.Errorf("redisstock: amount: %w", errText)
		}
		units[i] += n
	}
	return units, nil
}

// now is what the amount stands for now, and the sum of it.
func (a amount) now() (units []int64, sum int64) {
	units = make([]int64, len(a.asked))
	for i, n := range a.asked {
		units[i] = n
		if a.back != nil {
			units[i] -= a.back[i]
		}
		sum += units[i]
	}
	return units, sum
}

// lines says an amount in the caller's words: what it stands for now, and what
// was given back.
func (a amount) lines(p *stock.Pool) (quantity int64, lines, released []stock.Line) {
	units, sum := a.now()
	if a.back == nil {
		return sum, p.Lines(units), nil
	}
	if released = p.Lines(a.back); released == nil {
		released = []stock.Line{{SKU: p.SKU, Quantity: a.back[0]}}
	}
	return sum, p.Lines(units), released
}

// entryAmount is the amount of what the ledger has.
func entryAmount(e *stock.Entry, p *stock.Pool) (string, error) {
	units := []int64{e.Quantity}
	if len(p.Items) > 0 {
		units = make([]int64, len(p.Items))
		if e.Quantity > 0 {
			var err error
			if units, err = p.Basket(e.Lines); err != nil {
				return "", err
			}
		}
	}
	if len(e.Released) == 0 {
		return amountText(units), nil
	}
	back, err := p.Basket(e.Released)
	if err != nil {
		return "", err
	}
	for i := range back {
		units[i] += back[i]
	}
	return amountText(units) + "-" + amountText(back), nil
}
