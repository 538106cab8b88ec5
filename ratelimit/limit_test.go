package ratelimit_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/firstcome/firstcome/ratelimit"
)

func TestAddrKey_CountsIPv6ByTheSlash64AndIPv4ByAddress(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1":            "192.0.2.1",
		"::ffff:192.0.2.1":     "192.0.2.1",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"2001:db8:1:2:ffff::1": "2001:db8:1:2::/64",
		"2001:db8:1:3::1":      "2001:db8:1:3::/64",
		"fe80::1%eth0":         "fe80::/64",
	} {
		if got := ratelimit.AddrKey(netip.MustParseAddr(in)); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
	if got := ratelimit.AddrKey(netip.Addr{}); got != "" {
		t.Errorf("no address: %q", got)
	}
}

func ExampleLimit() {
	plain := ratelimit.Limit{Name: "api", Quota: 100, Window: time.Minute}
	strict := ratelimit.Limit{Name: "sms", Quota: 100, Window: time.Minute, Strict: true}
	fmt.Println(plain.Capacity(), time.Duration(plain.Interval())*time.Microsecond)
	fmt.Println(strict.Capacity(), time.Duration(strict.Interval())*time.Microsecond)
	fmt.Println(ratelimit.Limit{Name: "odd name", Quota: 1, Window: time.Second}.Validate())
	// Output:
	// 100 600ms
	// 50 1.17647s
	// ratelimit: invalid argument: Limit.Name "odd name" is not 1 to 64 letters, digits and -_. characters
}
