package idempotency

import "context"

// Policy says what becomes of an attempt that meets an unknown outcome. It is
// [Rerun] or made by [Refuse]; the zero Policy is refused by [New].
type Policy struct {
	rerun     bool
	reconcile func(context.Context, *Claim) (Verdict, error)
}

// Rerun runs the operation again. It must be repeatable under [Claim.ID]: what
// an earlier attempt did is found, not done again.
var Rerun = Policy{rerun: true}

// Refuse runs nothing until it is known what the earlier attempt did. reconcile
// is asked, on the path of each attempt that meets the unknown outcome, with
// the claim that ended so; two attempts may ask at the same time. The earlier
// attempt may be frozen rather than dead: answer [DidNotHappen] only where it
// can't happen any more either. An error counts as [StillUnknown] and is joined
// to the caller's [ErrUnknown].
func Refuse(reconcile func(context.Context, *Claim) (Verdict, error)) Policy {
	return Policy{reconcile: reconcile}
}

// Verdict is the answer of a reconcile function. The zero Verdict is
// [StillUnknown].
type Verdict struct {
	kind   verdictKind
	result []byte
}

type verdictKind uint8

const (
	verdictUnknown verdictKind = iota
	verdictHappened
	verdictNot
)

// Happened says that the operation took effect and what its result is. It is
// stored, and replayed from now on. With a nil result attempts hear
// [ErrNotKept]. For HTTP make the result with middleware.StoredResponse.
func Happened(result []byte) Verdict { return Verdict{kind: verdictHappened, result: result} }

// DidNotHappen says that the operation had no effect and will have none. The
// asking attempt runs it.
func DidNotHappen() Verdict { return Verdict{kind: verdictNot} }

// StillUnknown says that the question can't be answered yet.
func StillUnknown() Verdict { return Verdict{} }
