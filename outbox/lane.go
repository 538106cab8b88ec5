package outbox

// Lanes is how many parts the queue has. Every row stands in the lane of its
// topic and key; a lane has one relay at a time. The number is part of the
// stored format.
const Lanes = 64

// LaneOf returns the lane, 0 to 63, of a topic and key. Every writer of a table
// must agree on it, old versions and new, so it never changes: FNV-1a of 64 bits
// over topic, a zero byte and key, its halves folded, modulo 64.
func LaneOf(topic, key string) int {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for i := range len(topic) {
		h = (h ^ uint64(topic[i])) * prime
	}
	h *= prime // the zero byte
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * prime
	}
	return int((h ^ h>>32) % Lanes)
}

// Share returns how many lanes each of so many living relays may own at most.
func Share(relays int) int {
	if relays < 1 {
		relays = 1
	}
	return (Lanes + relays - 1) / relays
}
