package app

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/firstcome/firstcome/middleware"
	"github.com/firstcome/firstcome/worker"
)

// letterDesk is the operators' side of what was given up: the worker's dead
// letters (source worker) and the outbox's parked messages (source outbox).
//
//	GET  /letters/{source}?after=12&limit=100&state=&handler=&topic=&class=
//	GET  /letters/{source}/{id}             with the payload
//	POST /letters/{source}/{id}/requeue
//	POST /letters/{source}/{id}/drop
//
// It stands on the admin address only, which is loopback unless told otherwise,
// and has no login of its own: do not expose that address. A browser on the same
// machine is kept out: requests from other sites are refused, and so are those
// to a host name, since a name that was rebound to loopback looks like the same
// site.
type letterDesk struct {
	sources map[string]worker.LetterOperator
}

func (d *letterDesk) routes(mux *http.ServeMux) {
	guard := http.NewCrossOriginProtection()
	for pattern, serve := range map[string]func(http.ResponseWriter, *http.Request, worker.LetterOperator) error{
		"GET /letters/{source}":               d.list,
		"GET /letters/{source}/{id}":          d.read,
		"POST /letters/{source}/{id}/requeue": d.change(worker.LetterOperator.Requeue),
		"POST /letters/{source}/{id}/drop":    d.change(worker.LetterOperator.Drop),
	} {
		mux.Handle(pattern, guard.Handler(byAddress(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			letters, ok := d.sources[r.PathValue("source")]
			if !ok {
				middleware.WriteError(w, r, letterProblem(http.StatusNotFound, "unknown-source", "The source is worker or outbox."))
				return
			}
			if err := serve(w, r, letters); err != nil {
				fail(w, r, asProblem(err))
			}
		}))))
	}
}

// byAddress refuses requests that name the host otherwise than by its address.
func byAddress(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if _, err := netip.ParseAddr(host); err != nil && host != "localhost" {
			middleware.WriteError(w, r, letterProblem(http.StatusForbidden, "by-address", "Name the host by its IP address or as localhost."))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func letterProblem(status int, name, detail string) error {
	return &middleware.Problem{Type: "urn:firstcome:shop:" + name, Title: http.StatusText(status), Status: status, Detail: detail}
}

// asProblem says to an operator which of the ends it is.
func asProblem(err error) error {
	switch {
	case errors.Is(err, worker.ErrNoLetter):
		return letterProblem(http.StatusNotFound, "no-letter", "It is done, dropped, or was never there.")
	case errors.Is(err, worker.ErrRequeued):
		return letterProblem(http.StatusConflict, "requeued", "It is requeued already.")
	case errors.Is(err, worker.ErrLetterRunning):
		return letterProblem(http.StatusConflict, "letter-running", "A worker has it in hand. Look again.")
	case errors.Is(err, worker.ErrNotRequeueable):
		return letterProblem(http.StatusConflict, "not-requeueable", "It can't be run again; it can be dropped.")
	default:
		return err
	}
}

// letterView is a letter as it is shown.
type letterView struct {
	ID       int64             `json:"id"`
	State    string            `json:"state"`
	EventID  string            `json:"event_id"`
	Handler  string            `json:"handler,omitempty"`
	Topic    string            `json:"topic"`
	Key      string            `json:"key,omitempty"`
	Class    string            `json:"class"`
	Error    string            `json:"error"`
	Attempts int               `json:"attempts"`
	Requeues int               `json:"requeues"`
	At       time.Time         `json:"at"`
	AgeS     float64           `json:"age_s"`
	Size     int64             `json:"size"`
	Cut      bool              `json:"cut,omitempty"`
	Running  bool              `json:"running,omitempty"`
	NoWorker bool              `json:"no_worker,omitempty"` // requeued, and no worker has its handler
	Origin   worker.Origin     `json:"origin,omitzero"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Payload  []byte            `json:"payload,omitempty"` // base64
}

func viewOf(l *worker.StoredLetter) letterView {
	return letterView{
		ID: l.Seq, State: string(l.State), EventID: l.EventID, Handler: l.Handler, Topic: l.Topic, Key: l.Key,
		Class: string(l.Class), Error: l.Err, Attempts: l.Attempts, Requeues: l.Requeues, At: l.At, AgeS: l.Age.Seconds(),
		Size: l.Size, Cut: l.Cut, Running: l.Running, NoWorker: l.NoWorker, Origin: l.Origin, Metadata: l.Metadata, Payload: l.Payload,
	}
}

func (d *letterDesk) list(w http.ResponseWriter, r *http.Request, letters worker.LetterOperator) error {
	form := r.URL.Query()
	q := worker.LetterQuery{
		State: worker.LetterState(form.Get("state")), Handler: form.Get("handler"), Topic: form.Get("topic"), Class: worker.Class(form.Get("class")),
	}
	for name, into := range map[string]func(int64){"after": func(n int64) { q.After = n }, "limit": func(n int64) { q.Limit = int(min(n, 200)) }} {
		text := form.Get(name)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 0 {
			return badRequest("%s must be a whole number.", name)
		}
		into(n)
	}
	page, err := letters.Letters(r.Context(), q)
	if err != nil {
		return err
	}
	views := make([]letterView, len(page))
	for i := range page {
		views[i] = viewOf(&page[i])
	}
	writeJSON(w, http.StatusOK, map[string]any{"letters": views})
	return nil
}

func letterID(r *http.Request) (int64, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id < 0 {
		return 0, badRequest("The letter's ID must be a whole number.")
	}
	return id, nil
}

func (d *letterDesk) read(w http.ResponseWriter, r *http.Request, letters worker.LetterOperator) error {
	id, err := letterID(r)
	if err != nil {
		return err
	}
	l, err := letters.Letter(r.Context(), id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, viewOf(&l))
	return nil
}

func (d *letterDesk) change(do func(worker.LetterOperator, context.Context, int64) error) func(http.ResponseWriter, *http.Request, worker.LetterOperator) error {
	return func(w http.ResponseWriter, r *http.Request, letters worker.LetterOperator) error {
		id, err := letterID(r)
		if err != nil {
			return err
		}
		if err := do(letters, r.Context(), id); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}
