package ratelimit

import "net/netip"

// AddrKey returns the key under which a client's address is limited: an IPv4
// address as it is, also where it comes wrapped in IPv6, and of an IPv6 address
// the /64, since that is what one customer is given. It is empty, which no
// limiter takes, for an address that is not valid.
//
// Which address is the client's is for a library to say that knows your
// proxies; see the example of middleware.RateLimit.
func AddrKey(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	if !addr.IsValid() {
		return ""
	}
	if addr.Is4() {
		return addr.String()
	}
	return netip.PrefixFrom(addr, 64).Masked().String()
}
