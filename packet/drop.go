package packet

import (
	"iter"
	"sync/atomic"
)

// Drop is why a packet went no further. Every packet that the engine does not
// deliver is counted under exactly one. Names marked RFC 4301 or RFC 4303 are
// those documents' auditable events.
type Drop uint8

const (
	Kept Drop = iota // not dropped

	// What the headers say of themselves.
	Truncated  // shorter than its headers say
	BadVersion // neither IPv4 nor IPv6, or not the family that the place holds
	BadLength  // a length field that contradicts itself or the packet

	// Towards the wire.
	PolicyDiscard // a policy says discard
	NoSA          // a policy wants an SA that is not there
	SeqExhausted  // RFC 4303 3.3.3: the sequence number would wrap
	TooBig        // longer than the path, or a datagram, can carry
	Fragment      // RFC 4303 3.3.4: transport mode protects whole packets alone
	Options       // IP options or extension headers, which sockets for ESP in UDP do not send
	NoLink        // no socket for this family or encapsulation
	NotUnicast    // to pass as it is, but bound for one link: multicast, broadcast, link-local
	TTLExceeded   // passed as it is, its TTL ran out: most likely a routing loop
	SendFailed    // the kernel refused to send it

	// From the wire.
	NotESP        // not a protocol that this socket is for
	Keepalive     // RFC 3948 2.3: NAT keepalive, one octet 0xff
	NonESPMarker  // RFC 3948 2.2: SPI 0, meant for a key exchange daemon
	UnknownSPI    // RFC 4303 3.4.2: no SA for SPI, protocol and destination
	EncapMismatch // came in UDP where the SA says raw, or the reverse
	Replayed      // RFC 4303 3.4.3: seen before, or left of the window
	BadICV        // RFC 4303 3.4.4: the integrity check failed
	BadPadding    // RFC 4303 2.4: pad length beyond the packet
	Dummy         // RFC 4303 2.6: next header 59, sent to be thrown away
	BadInner      // what came out of a tunnel is no IP packet of the family announced
	ECN           // RFC 6040 4.2: outer CE over an inner that is not ECN-capable
	PolicyClash   // RFC 4301 5.2: an inbound policy wants other protection
	NotDelivered  // the kernel refused to take it from the TUN

	NumDrops
)

// drops holds the name of each reason, as it is shown and never changes, and a
// sentence of help.
var drops = [NumDrops]struct{ name, help string }{
	Kept:          {"kept", "not dropped"},
	Truncated:     {"truncated", "the packet is shorter than its headers say"},
	BadVersion:    {"bad-version", "the packet is neither IPv4 nor IPv6, or not of the family that its place says"},
	BadLength:     {"bad-length", "a length field contradicts itself or the packet"},
	PolicyDiscard: {"policy-discard", "a policy says discard"},
	NoSA:          {"no-sa", "a policy requires an SA that is not loaded"},
	SeqExhausted:  {"seq-exhausted", "the SA has used all its sequence numbers; it needs a new key"},
	TooBig:        {"too-big", "the packet is longer than the path or a datagram can carry"},
	Fragment:      {"fragment", "transport mode protects whole packets, and this one is a fragment; is it larger than the TUN's MTU?"},
	Options:       {"options", "in transport mode UDP encapsulation takes no packets with IP options or IPv6 extension headers"},
	NoLink:        {"no-link", "there is no socket for this family or encapsulation port"},
	NotUnicast:    {"not-unicast", "no policy protects the packet, and multicast, broadcast and link-local ones stay on their link"},
	TTLExceeded:   {"ttl-exceeded", "a packet that no policy protects ran out of TTL; does its route lead into the TUN?"},
	SendFailed:    {"send-failed", "the kernel refused to send the packet"},
	NotESP:        {"not-esp", "the packet is not of a protocol that this socket is for"},
	Keepalive:     {"keepalive", "a NAT keepalive, which carries nothing"},
	NonESPMarker:  {"non-esp-marker", "a datagram for a key exchange daemon, and none is attached"},
	UnknownSPI:    {"unknown-spi", "no SA has this SPI, protocol and destination"},
	EncapMismatch: {"encap-mismatch", "the SA is UDP-encapsulated and the packet is not, or the reverse"},
	Replayed:      {"replayed", "the sequence number was seen before or is left of the window"},
	BadICV:        {"bad-icv", "the integrity check failed: other key, algorithm or -esn than the peer's, or a changed packet"},
	BadPadding:    {"bad-padding", "the decrypted trailer is impossible"},
	Dummy:         {"dummy", "a dummy packet (next header 59), sent to be thrown away"},
	BadInner:      {"bad-inner", "what came out of the tunnel is no valid IP packet; is the peer in transport mode?"},
	ECN:           {"ecn", "congestion was marked on the way and the inner packet cannot carry the mark"},
	PolicyClash:   {"policy-clash", "an inbound policy wants the packet protected in another way, or none asks for the tunnel of an SA without -m tunnel"},
	NotDelivered:  {"not-delivered", "the kernel refused to take the packet from the TUN; is the device up?"},
}

// String returns the reason's name: lower case, words joined by hyphens.
func (d Drop) String() string {
	if d < NumDrops {
		return drops[d].name
	}
	return "unknown"
}

// Help returns one sentence on what the reason means.
func (d Drop) Help() string {
	if d < NumDrops {
		return drops[d].help
	}
	return ""
}

// Counters counts packets by the reason they were dropped for. The zero value
// is ready; methods may be called concurrently.
type Counters struct {
	n [NumDrops]atomic.Uint64
}

// Add counts n packets under d; Kept is not counted.
func (c *Counters) Add(d Drop, n int) {
	if d != Kept && n > 0 {
		c.n[d].Add(uint64(n))
	}
}

// Get returns the count of one reason.
func (c *Counters) Get(d Drop) uint64 { return c.n[d].Load() }

// All yields the reasons that counted anything.
func (c *Counters) All() iter.Seq2[Drop, uint64] {
	return func(yield func(Drop, uint64) bool) {
		for d := Kept + 1; d < NumDrops; d++ {
			if n := c.n[d].Load(); n > 0 && !yield(d, n) {
				return
			}
		}
	}
}
