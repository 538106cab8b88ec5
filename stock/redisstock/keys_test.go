package redisstock_test

import (
	"strings"
	"testing"

	"github.com/firstcome/firstcome/internal/testenv"
	"github.com/firstcome/firstcome/stock"
	"github.com/firstcome/firstcome/stock/redisstock"
)

// awkward are names that would be trouble in a key.
var awkward = []string{
	"a", "A", "a:b", "a:b:", "{a}", "{b}", "}{", "{", "}", "{}a", " a", "a ", "stock", "é", "e\u0301",
	"*", "[a]", "?", `"`, `\`, "meta", strings.Repeat("x", 255), strings.Repeat("x", 254) + "y",
}

func TestAnyNameMakesKeysOfItsOwnInOneSlotThatItDoesNotChoose(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	store := mustStore(t, client, nil, nil)
	owner, slots := map[string]string{}, map[uint16]int{}
	for _, sku := range awkward {
		keys := redisstock.Keys(store, sku)
		if len(keys) != 3 {
			t.Fatalf("%d keys", len(keys))
		}
		slots[slot(keys[0])]++
		for _, key := range keys {
			if other, taken := owner[key]; taken {
				t.Errorf("%q and %q share the key %q", sku, other, key)
			}
			owner[key] = sku
			if slot(key) != slot(keys[0]) {
				t.Errorf("%q has keys in two slots", sku)
			}
			if len(key) > 60 || len(sku) > 1 && sku != "meta" && sku != "stock" && strings.Contains(key, sku) {
				t.Errorf("%q shows in the key %q", sku, key)
			}
		}
	}
	if n := slots[slot("{a}")] + slots[slot("{b}")]; n > 2 {
		t.Errorf("%d names have chosen their slot", n)
	}
}

func TestPoolsWithAwkwardNamesDoNotMeet(t *testing.T) {
	t.Parallel()
	server := testenv.NewRedis(t)
	client := server.Client(t)
	store := mustStore(t, client, nil, nil)
	for i, sku := range awkward {
		s := newStand(t, store, client, func(p *stock.Pool) { p.SKU, p.Total = sku, int64(i+1) })
		s.hold("ann")
	}
	for i, sku := range awkward {
		l, err := store.Levels(t.Context(), sku)
		if err != nil || l.SKU != sku || l.Total != int64(i+1) || l.Held != 1 {
			t.Errorf("%q: got %+v, %v", sku, l, err)
		}
	}
}

func TestBuyersWithAwkwardNamesDoNotMeet(t *testing.T) {
	t.Parallel()
	client := testenv.Redis(t).Client(t)
	s := newStand(t, mustStore(t, client, nil, nil), client, func(p *stock.Pool) { p.Total, p.Limit = 100, 1 })
	for _, buyer := range awkward {
		s.hold(buyer)
	}
	s.levels(int64(100-len(awkward)), int64(len(awkward)), 0)
}

func TestAPrefixThatCouldChooseASlotIsRefused(t *testing.T) {
	t.Parallel()
	client := testenv.Mini(t)
	for _, prefix := range []string{"{x}", "a{", "a}", "a:b", "a b", "a\n", "é"} {
		if _, err := redisstock.New(client, nil, redisstock.JournalOff, &redisstock.Options{Prefix: prefix}); err == nil {
			t.Errorf("%q was taken", prefix)
		}
	}
}

// slot is the cluster slot of a key: CRC-16 (XMODEM) of its hash tag.
func slot(key string) uint16 {
	if from := strings.IndexByte(key, '{'); from >= 0 {
		if size := strings.IndexByte(key[from+1:], '}'); size > 0 {
			key = key[from+1 : from+1+size]
		}
	}
	var crc uint16
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc % 16384
}
