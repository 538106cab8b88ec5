// Package house keeps the rules of this house that no compiler keeps: which
// package may import which. They are in its tests; docs/design.md says why.
package house
