// Package control is the key engine: it answers PF_KEY v2 messages (package
// pfkey, the dialect of control.sock) and is the only writer of the SAD and the
// SPD, which it changes on behalf of setkey and of configuration files.
//
// Replies go to the asker alone. They echo type, seq and pid; a refusal is the
// bare header with an errno of this host and, where there is more to say, an
// ERROR_TEXT. Errnos are those of the KAME kernels: EINVAL for what is missing
// or malformed (also SPDDELETE of a missing policy), EEXIST, ENOENT,
// EPROTONOSUPPORT for protocols, EOPNOTSUPP for what ipsecd cannot do. A peer of
// another user gets EPERM and is hung up on.
//
// A request is done or refused, but these parts of it have no effect: ports,
// prefix lengths and protocols in the addresses of SAs; the original addresses
// of NAT-T, which serve checksums in transport mode, in a tunnel: elsewhere they
// are refused; the reqid of a level other than unique; CYCSEQ, as numbers never cycle (dumps show the flag); that an SA is
// to begin larval, as each is mature at once; SA2's sequence number; and
// extensions that other requests have.
//
// UPDATE with keys puts the SA that an ADD would add in the place of the one
// that is there, at one stroke. It keeps its place in dumps and among the SAs of
// its ends, and where algorithms, keys and ESN are the same, sequence numbers go
// on and replays of what was received stay replays; usage counts anew. UPDATE
// without keys changes the ports of UDP encapsulation, and
// nothing else: what it leaves zero stays, and what it would change it refuses.
// SPDUPDATE puts a policy in the place of the one with its selector and
// direction, or adds it where there is none. As in NetBSD the policy has a new
// ID; unlike there it stays where the old one stood, unless the priority is
// another. Levels unique are given a new reqid above those that people give,
// unless they have one of these, or the one that the policy before had.
//
// Between BEGIN and COMMIT a session's changes to both databases are staged:
// errnos and dumps show the session its own view, everybody else sees nothing.
// The view has the policies as they were at BEGIN, but the SAs as they are: what
// others do to those shows through. COMMIT publishes: each SA whose ID stays is
// replaced at one stroke, new SAs come first, then the policies change all at
// once, and SAs go last, so that a reload leaves no moment without policies, nor
// a policy without the SAs it comes with. ABORT, or the end of the session,
// forgets the changes. When another session's changes were published meanwhile,
// COMMIT lays the staged changes on top of them, or fails as a whole and names
// the SA or policy in its way: EEXIST where one was added by both, or the SA is
// another than the one that was changed or deleted, ENOENT where an SA that is
// to change is gone.
//
// An Engine is safe for concurrent use, a Session belongs to one goroutine. One
// mutex orders all writes; it is never held during I/O. Key octets pass through
// to SAs and to the dumps that ask for them, never into a log or an error; what
// Serve and LoadFile read and write of them is cleared.
package control

import (
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"time"

	"ipsecd/pfkey"
	"ipsecd/sad"
	"ipsecd/spd"
)

// Config is what an Engine works on. SAD and SPD are required, and nobody else
// writes to them.
type Config struct {
	SAD *sad.DB
	SPD *spd.DB
	Log *slog.Logger // nil: no log

	// NATTPort is the UDP port that this host encapsulates on; 0 refuses SAs
	// with encapsulation.
	NATTPort uint16

	Now func() time.Time // nil: time.Now

	// OnChange, unless nil, is called after each publish, once, without locks
	// held and before the answer. Its error is the answer, EIO; what was
	// published stays. Two calls may overlap.
	OnChange func() error
}

// Engine answers PF_KEY messages. Make one with New.
type Engine struct {
	cfg Config

	mu            sync.Mutex
	keys          keyUses // [m]
	lastPolicyID  uint32  // [m]
	lastAutoReqid uint16  // [m]
	publishes     uint64  // [m] of either database
	spdPublishes  uint64  // [m]
}

// Session is what the engine remembers of one asker: an open transaction and
// whether it registered. The zero value is a new session.
type Session struct {
	txn        *transaction // nil: none is open
	registered bool
}

// New returns an engine for cfg.
func New(cfg Config) *Engine {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Engine{cfg: cfg, keys: newKeyUses(), lastAutoReqid: maxManualReqid}
}

// replies are the answers to one request, made as they are asked for, so that a
// dump of any size needs little memory.
type replies = iter.Seq[*pfkey.Message]

// handlers run with Engine.mu held; what they return runs without.
var handlers = map[uint8]func(*Engine, *Session, *pfkey.Message) (replies, error){
	pfkey.ADD:       (*Engine).addSA,
	pfkey.UPDATE:    (*Engine).updateSA,
	pfkey.GET:       (*Engine).getSA,
	pfkey.DELETE:    (*Engine).deleteSA,
	pfkey.FLUSH:     (*Engine).flushSAs,
	pfkey.DUMP:      (*Engine).dumpSAs,
	pfkey.REGISTER:  (*Engine).register,
	pfkey.SPDADD:    (*Engine).addPolicy,
	pfkey.SPDUPDATE: (*Engine).updatePolicy,
	pfkey.SPDGET:    (*Engine).getPolicy,
	pfkey.SPDDELETE: (*Engine).deletePolicy,
	pfkey.SPDFLUSH:  (*Engine).flushPolicies,
	pfkey.SPDDUMP:   (*Engine).dumpPolicies,
	pfkey.BEGIN:     (*Engine).beginTransaction,
	pfkey.COMMIT:    (*Engine).commitTransaction,
	pfkey.ABORT:     (*Engine).abortTransaction,
}

// Handle does what m asks for and returns the answers, at least one.
func (e *Engine) Handle(s *Session, m *pfkey.Message) []*pfkey.Message {
	return slices.Collect(e.answer(s, m))
}

// answer is Handle, but dumps are made while the result is walked.
func (e *Engine) answer(s *Session, m *pfkey.Message) replies {
	out, err := e.dispatch(s, m)
	if err != nil {
		return one(e.refusal(m, err))
	}
	return out
}

// answerBytes is answer for a message as it came.
func (e *Engine) answerBytes(s *Session, b []byte) replies {
	header, err := pfkey.DecodeHeader(b)
	if err != nil {
		return one(e.refusal(&header, err))
	}
	if handlers[header.Type] == nil {
		return e.answer(s, &header) // whatever its extensions are
	}
	m, err := pfkey.Decode(b)
	if err != nil {
		return one(e.refusal(&header, err))
	}
	defer m.ClearKeys()
	return e.answer(s, m)
}

func (e *Engine) dispatch(s *Session, m *pfkey.Message) (replies, error) {
	handle := handlers[m.Type]
	if handle == nil {
		return nil, refuse(syscall.EOPNOTSUPP, "%s is not supported", pfkey.TypeName(m.Type))
	}
	e.mu.Lock()
	before := e.publishes
	out, err := handle(e, s, m)
	changed := e.publishes != before
	e.mu.Unlock()
	if changed && e.cfg.OnChange != nil {
		if e := e.cfg.OnChange(); e != nil && err == nil {
			err = refuse(syscall.EIO, "the databases have changed, but the host's network did not follow: %v", e)
		}
	}
	return out, err
}

// refusal is the answer to m that says err.
func (e *Engine) refusal(m *pfkey.Message, err error) *pfkey.Message {
	errno, text := explain(err)
	if text != "" {
		e.cfg.Log.Warn("refused a request", "type", pfkey.TypeName(m.Type), "pid", m.PID, "errno", errno, "why", text)
	}
	r := reply(m)
	r.Errno, r.Text = uint8(errno), text
	return r
}

// refused is a refusal with the errno that says it to programs.
type refused struct {
	errno syscall.Errno
	text  string
}

func (r refused) Error() string { return r.text }

func refuse(errno syscall.Errno, format string, args ...any) error {
	return refused{errno, fmt.Sprintf(format, args...)}
}

// explain returns the errno of an error, and its text where it says more than
// the errno does.
func explain(err error) (syscall.Errno, string) {
	var r refused
	switch {
	case errors.As(err, &r):
		return r.errno, r.text
	case errors.Is(err, sad.ErrExists), errors.Is(err, spd.ErrExists):
		return syscall.EEXIST, ""
	case errors.Is(err, sad.ErrNotFound), errors.Is(err, errEmpty):
		return syscall.ENOENT, ""
	}
	return syscall.EINVAL, err.Error()
}

// reply is the bare header that answers m.
func reply(m *pfkey.Message) *pfkey.Message {
	return &pfkey.Message{Type: m.Type, SAType: m.SAType, Seq: m.Seq, PID: m.PID}
}

func one(m *pfkey.Message) replies {
	return func(yield func(*pfkey.Message) bool) { yield(m) }
}

var errEmpty = errors.New("nothing to dump")

// dump answers m with one message for each entry, numbered down to 0.
func dump[T any](m *pfkey.Message, entries []T, message func(T) *pfkey.Message) (replies, error) {
	if len(entries) == 0 {
		return nil, errEmpty
	}
	return func(yield func(*pfkey.Message) bool) {
		for i, entry := range entries {
			r := message(entry)
			r.Type, r.PID, r.Seq = m.Type, m.PID, uint32(len(entries)-1-i)
			if !yield(r) {
				return
			}
		}
	}, nil
}
