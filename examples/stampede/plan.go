package main

// send is one purchase to be sent until it is answered. A buyer has one, or two
// if the purchase is sent twice.
type send struct {
	buyer int32
	tries uint16
	cut   bool // cut the connection after writing, the first time
	heard bool // has had an answer that puts it off
}

// plan lists the sends of a crowd in the order in which connections take them
// up. Shares are spread evenly over the crowd, so that there are duplicates and
// cut connections among the first buyers, who win, as well as among the last.
//
// A duplicate stands either right behind its first send, so that the next
// connection writes it at about the same time, or conns buyers later, when the
// first is likely to be answered.
func plan(users, conns int, duplicates, cut float64) []send {
	sends := make([]send, 0, users+int(float64(users)*duplicates)+1)
	later := make(map[int][]send) // by the buyer behind whom they stand
	twins := 0
	for buyer := range users {
		first := send{buyer: int32(buyer), cut: nth(buyer, cut)}
		sends = append(sends, first)
		if nth(buyer, duplicates) {
			twin := send{buyer: first.buyer}
			if twins++; twins%2 == 0 {
				sends = append(sends, twin)
			} else {
				later[buyer+conns] = append(later[buyer+conns], twin)
			}
		}
		sends = append(sends, later[buyer]...)
		delete(later, buyer)
	}
	for place := users; len(later) > 0; place++ {
		sends = append(sends, later[place]...)
		delete(later, place)
	}
	return sends
}

// nth says whether buyer i is one of an evenly spread share.
func nth(i int, share float64) bool {
	return int(float64(i+1)*share) > int(float64(i)*share)
}
