// Package dataplane is the engine: it takes bursts from one link to another,
// through the policies and under the SAs. The tree shows a packet's way:
// inside.go from the TUN to the wire, outside.go from the wire to the TUN,
// flowcache.go in front of both databases, sachoice.go for the SA that a packet
// leaves under, verify.go for what policies say of packets that arrive, natt.go
// for what comes to the encapsulation port, worker.go for what both ways share.
//
// It owns the workers' caches and buffers; the databases and the links are its
// caller's. Each worker is one goroutine that runs a burst to its end: read, look
// up, transform, write. Workers share the databases, which they read without a
// lock, and the counters; any number of them may run at once. An Engine's methods
// and counters may be used from anywhere, a worker's Run by one goroutine.
// Nothing is allocated, locked or logged per packet, but the counters of an SA at
// its first drop and a stateful cipher at its first packet; no I/O but through
// package link, no clock but the one in Config.
//
// RFC 4301 section 5 (processing of outbound and inbound traffic), RFC 4303
// 3.3 and 3.4 (ESP), RFC 3948 section 2 (what arrives on the encapsulation
// port).
package dataplane

import (
	"errors"
	"os"
	"sync/atomic"

	"ipsecd/dataplane/link"
	"ipsecd/packet"
	"ipsecd/sad"
	"ipsecd/spd"
)

// Config is what an Engine works with.
type Config struct {
	SAD *sad.DB
	SPD *spd.DB
	Now func() int64 // Unix seconds, called once a burst

	// Hop makes us a hop for packets that pass as they are: their TTL goes
	// down by one. It ends loops where nothing keeps the real route of such a
	// packet from leading into the TUN again.
	Hop bool
}

// Engine is what all workers share.
type Engine struct {
	Config
	Drops packet.Counters

	// Bypassed counts packets that a policy, or the lack of one, sent on as
	// they are.
	Bypassed atomic.Uint64
}

// Wires is where packets leave, by IP version and encapsulation. A nil link
// drops what would go there as no-link.
type Wires struct {
	Raw4, Raw6       link.Outside // protocol 50
	UDP4, UDP6       link.Outside // UDP encapsulation
	UDPPort          uint16       // that UDP4 and UDP6 send from
	Bypass4, Bypass6 link.Outside // any protocol, for what no SA protects
}

// New returns an engine without workers.
func New(c Config) *Engine { return &Engine{Config: c} }

// stopped tells the end of a worker from a link's passing trouble.
func stopped(err error) bool { return errors.Is(err, os.ErrClosed) }

// dropFor is the reason for a packet that a wire refused.
func dropFor(err error) packet.Drop {
	if errors.Is(err, link.ErrTooBig) {
		return packet.TooBig
	}
	return packet.SendFailed
}
