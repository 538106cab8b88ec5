// Package middleware puts rate limits and idempotent replay in front of any
// net/http handler. All that the module says in HTTP is said here.
//
// The promise: a request that is refused by a limit charges none and changes
// nothing; of all requests with one Idempotency-Key of one caller, at most one
// runs at a time, and once one is answered the others get that answer. Nothing
// of an answer reaches the client before it is stored.
//
// The smallest whole use:
//
//	limit := middleware.RateLimit(limiter, takes, middleware.FailClosed, nil)
//	once := middleware.Idempotency(keeper, buyer, &middleware.IdempotencyOptions{Required: true})
//	http.Handle("POST /orders", authenticate(limit(once(placeOrder))))
//
// # Order
//
// From the outside in: authentication, RateLimit, Idempotency, the handler. A
// replay then runs after authorization, and a request that was limited leaves
// its key unused. A replay does consume quota in this order; where it must not,
// put RateLimit inside Idempotency: a 429 releases the key.
//
// # What becomes of an answer
//
//	answer                                          the key
//	2xx, 3xx and 4xx but those below                is done; the answer is replayed
//	400, 401, 403, 408, 425, 429,
//	any 4xx with Retry-After                        is free again
//	all-held, sold-out, buyer-limit, not-open and
//	other refusals "not now" by [WriteError]        is free again
//	after Claim.NothingHappened                     is free again
//	5xx, a panic, runtime.Goexit                    is unknown: see idempotency.Policy
//	larger than the cap, streamed, with trailers    is done; later ones get 409 result-not-kept
//	any, while the store fails                      is unknown; the client gets the true answer
//
// # Problems
//
// Refusals are application/problem+json (RFC 9457). Types begin with
// urn:firstcome: and stay the same; [WriteError] gives them to handlers too.
//
//	in-flight                   409  the key's first request is still running; Retry-After
//	key-reused                  422  the key was used with another request
//	outcome-unknown             409  the policy is Refuse and nobody knows yet
//	result-not-kept             409  executed; the answer was too large or streamed
//	record-unreadable           500  the stored record is damaged or of a newer version
//	key-missing, key-malformed  400  Link to IdempotencyOptions.DocsURL
//	no-principal                403  the scope or key function could not tell who asks
//	body-too-large              413
//	body-unreadable, invalid    400
//	body-timeout                408  slower than IdempotencyOptions.BodyTimeout or the server's ReadTimeout
//	length-required             411  an empty body whose length was not announced
//	body-consumed               500  outer middleware has read the body: see below
//	sold-out                    409
//	all-held                    409  Retry-After: the next hold's end
//	buyer-limit                 409  "remaining": units
//	not-open                    409  Retry-After: the opening
//	paused                      409  Retry-After
//	too-many-attempts, closed, too-late, confirmed, cancelled, not-confirmed,
//	version, in-use  409
//	unknown-sku, not-found      404
//	unavailable                 503  a store is down, a pool fenced, a queue or journal full; Retry-After
//	internal                    500  any other error
//
// A denied limit is 429 with the type that the RateLimit draft registers,
// https://iana.org/assignments/http-problem-types#quota-exceeded, the member
// violated-policies, and Retry-After unless the cost can never fit.
//
// Retry-After is rounded up and spread upwards, so that those who were refused
// together don't return together.
//
// # Bodies
//
// The body is read before the handler runs: to its end, whatever length was
// announced, up to MaxBody and for BodyTimeout at most. It is compared as raw
// bytes: JSON with other whitespace is another payload. Turnaway, Admission and
// the handler each find it whole, with its true length.
//
// Outer middleware may put another body in its place, as one that unpacks it
// does: then that is what counts. It may parse a form (a CSRF token, a method
// override): then the form is compared, in any order of its names, with its files
// by their content, and the handler finds it parsed. Where it has read the body
// and left neither, the request is refused and the log told: all payloads would
// be one. Have it put the body back, or stand inside.
//
// The server needs a ReadTimeout all the same: what is refused before the body is
// read, as a missing key, leaves the rest of it to net/http.
//
// What outer middleware has set of an answer's header is said anew on a replay.
// Of this answer only that counts and is kept which the handler has set.
//
// # Keys
//
// The Idempotency-Key header holds one key in quotes, as the draft has it, or
// bare, as most clients send it; the two are one key.
//
//	"abc"            accepted, the key abc
//	abc              accepted, the key abc
//	"a\"b"           accepted, the key a"b
//	"abc";p=1        400, parameters
//	abc;p=1 a,b a"b  400, in the bare form ; , " \ have no place
//	"" or nothing    400, empty
//	256 bytes        400, at most 255, without the quotes
//	"a b", "ä", \x01 400, visible ASCII only (0x21 to 0x7e)
//	two header lines 400
//
// # Limits
//
//   - Of the stored headers an allow-list is replayed; Set-Cookie, Date,
//     hop-by-hop, trace and rate limit fields are not.
//   - Below the cap an answer is buffered: Flush does nothing, Hijack is not
//     supported, 1xx answers pass, and a header that is set after WriteHeader is
//     still sent.
//   - Keys stand in no error, log, span or metric.
package middleware
