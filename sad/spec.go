package sad

import (
	"net/netip"
	"slices"
)

// IP protocol numbers of the SA's protocol.
const (
	ProtoESP uint8 = 50
	ProtoAH  uint8 = 51
)

// Mode is numbered as in PF_KEY (IPSEC_MODE_*).
type Mode uint8

const (
	ModeAny       Mode = 0
	ModeTransport Mode = 1
	ModeTunnel    Mode = 2
)

// Encap is the UDP encapsulation of an SA (RFC 3948). The zero value is none.
// Ports are those of the outer header as the SA's source sends it.
type Encap struct {
	SrcPort, DstPort uint16
}

// Lifetime is a limit, PF_KEY's sadb_lifetime; 0 is no limit.
type Lifetime struct {
	Allocations uint32
	Bytes       uint64
	AddTime     uint64 // seconds since it was added
	UseTime     uint64 // seconds since it was first used
}

// ID names an SA: no two SAs of a database have the same.
type ID struct {
	SPI   uint32 // host order
	Proto uint8
	Dst   netip.Addr
}

// Spec is all that an operator says of an SA: pure values, nothing live. Key
// octets belong to the Spec; NewSA copies them.
type Spec struct {
	ID
	Src     netip.Addr // of Dst's family
	Mode    Mode
	Reqid   uint32
	Replay  uint32 // window in packets; 0 accepts replays
	Encap   Encap
	Enc     uint8 // crypto/alg numbers
	Auth    uint8
	EncKey  []byte // key, then salt for combined modes
	AuthKey []byte
	Flags   uint32 // SADB_SAFLAGS_* and SADB_X_EXT_* as given; kept for dumps
	Hard    Lifetime
	Soft    Lifetime
	PID     uint32 // who added it, for dumps
	Seq     uint32 // of the message that added it, for dumps
	Created int64  // Unix seconds
}

func (s *Spec) clone() Spec {
	c := *s
	c.EncKey = slices.Clone(s.EncKey)
	c.AuthKey = slices.Clone(s.AuthKey)
	return c
}
