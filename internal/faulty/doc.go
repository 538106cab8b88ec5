// Package faulty loses, delays and cuts what travels between a client and a
// server, at a chosen point of a chosen conversation. It stands in for the
// dialer of any TCP client:
//
//	dialer := faulty.NewDialer()
//	client := redis.NewClient(&redis.Options{Addr: addr, Dialer: dialer.DialContext})
//	fault := dialer.CutReply(1, faulty.Contains("evalsha"))
//	err := reserve(ctx, client) // the server has done it; its word is lost
//	fault.MustFire(t)
//
// A connection may also stall ([Dialer.Stall]), all that are open may die without
// a reset ([Dialer.StaleAll]), and a [Proxy] moves a server as far away as another
// machine. A node that freezes is testenv's: Stop, of one server of a cluster.
//
// It fits redis.Options.Dialer, pgconn.Config.DialFunc, kgo.Dialer and, as a
// proxy dialer, sarama.Config.Net.Proxy.
//
// A conversation is seen as turns: what a client writes until it reads
// something is a request, the first bytes that it then reads are its reply.
// Faults of replies are applied after the reply has arrived from the server:
// the request has been executed, for sure. That holds for clients that wait
// for an answer before they write again, as go-redis, pgx and database/sql
// drivers do on one connection. Where several requests are under way on one
// connection (Kafka clients, pipelines in the background) the first bytes
// read after a request may answer an earlier one, so that the outcome of the
// request itself is open: still a fair fault, but not a chosen one.
package faulty
