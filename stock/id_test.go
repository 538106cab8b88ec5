package stock_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/firstcome/firstcome/stock"
)

func TestAnIDIsTheSameForTheSameThreeAndAnotherForAnyOther(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.StringN(1, 20, 60)
		pool, buyer := text.Draw(rt, "pool"), text.Draw(rt, "buyer")
		other := text.Filter(func(s string) bool { return s != pool && s != buyer }).Draw(rt, "other")
		claim := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(rt, "claim"))
		id := stock.NewID(pool, buyer, claim)
		if id != stock.NewID(pool, buyer, claim) {
			rt.Fatal("not the same")
		}
		if id == stock.NewID(other, buyer, claim) || id == stock.NewID(pool, other, claim) {
			rt.Fatal("another pool or buyer has the same ID")
		}
		if id.ClaimPart() != claim {
			rt.Fatal("the claim is lost")
		}
	})
}

func TestAnIDsTextReadsBackAndSortsAsItsBytes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		bytes := rapid.SliceOfN(rapid.Byte(), 36, 36)
		a, b := stock.ID(bytes.Draw(rt, "a")), stock.ID(bytes.Draw(rt, "b"))
		back, err := stock.ParseID(a.String())
		if err != nil || back != a {
			rt.Fatalf("%v reads back as %v, %v", a, back, err)
		}
		if strings.Compare(a.String(), b.String()) != strings.Compare(string(a[:]), string(b[:])) {
			rt.Fatal("text and bytes sort differently")
		}
		var fromJSON, fromSQL stock.ID
		text, err := json.Marshal(a)
		if err != nil || json.Unmarshal(text, &fromJSON) != nil || fromJSON != a {
			rt.Fatalf("JSON: %s, %v", text, err)
		}
		value, err := a.Value()
		if err != nil || fromSQL.Scan(value) != nil || fromSQL != a {
			rt.Fatalf("SQL: %v, %v", value, err)
		}
	})
}

func TestAnotherSpellingOfAnIDIsRefused(t *testing.T) {
	good := stock.NewID("sku", "ann", [16]byte{1}).String()
	for name, text := range map[string]string{
		"empty":          "",
		"short":          good[1:],
		"long":           good + "0",
		"upper case":     strings.ToUpper(good),
		"other letters":  "z" + good[1:],
		"trailing bits":  good[:len(good)-1] + "v",
		"line break":     good[:57] + "\n",
		"NUL":            "\x00" + good[1:],
		"not ASCII":      "é" + good[2:],
		"braces":         "{" + good[2:] + "}",
		"leading spaces": " " + good[1:],
	} {
		if id, err := stock.ParseID(text); !errors.Is(err, stock.ErrInvalid) {
			t.Errorf("%s: %v, %v", name, id, err)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add(stock.NewID("sku", "ann", [16]byte{1}).String())
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := stock.ParseID(text); err == nil && id.String() != text {
			t.Fatalf("%q is read as %q", text, id)
		}
	})
}
