// Package faultrows tries what a fault of one connection or of one server costs
// a driver on Redis, beside a plain script on the same kind of client: a driver
// that shares trips among its callers must not share their mishaps.
//
// All rows run on real servers. A row fails where the driver does worse than the
// script by more than a busy machine explains, and logs both tolls.
package faultrows
