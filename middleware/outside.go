package middleware

import (
	"maps"
	"net/http"
	"strings"
)

// outside is the header of an answer as outer middleware has left it, before the
// handler ran. It speaks of all answers of the route, and is said anew on a
// replay; of this answer only that speaks which the handler has set.
type outside http.Header

func outsideOf(h http.Header) outside {
	if len(h) == 0 {
		return nil
	}
	return outside(maps.Clone(h))
}

// own returns the lines of a name in h that the handler has set; nil where they
// are still those of outside. Set and Add both make another list.
func (o outside) own(h http.Header, name string) []string {
	now, was := h[name], o[name]
	if len(now) == len(was) && len(now) > 0 && &now[0] == &was[0] {
		return nil
	}
	return now
}

// hasTrailers reports trailers that the handler has set without declaring them
// before the body.
func (o outside) hasTrailers(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, http.TrailerPrefix) && o.own(h, name) != nil {
			return true
		}
	}
	return false
}
