package app

import (
	_ "embed"
	"html/template"
	"net/http"

	"github.com/firstcome/firstcome/stock"
)

//go:embed web/page.html
var pageHTML string

var pageTemplate = template.Must(template.New("page").Parse(pageHTML))

// page shows the stock and the last orders; html/template escapes what buyers
// named themselves.
func (s *web) page(w http.ResponseWriter, r *http.Request) {
	levels, err := s.stock.Levels(r.Context(), s.cfg.SKU)
	if err != nil {
		fail(w, r, err)
		return
	}
	last, err := s.orders.last(r.Context(), s.cfg.SKU, 20)
	if err != nil {
		fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	_ = pageTemplate.Execute(w, struct {
		Stock  stock.Levels
		Orders []Order
	}{levels, last})
}
