package sad

import "net/netip"

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

// Padding is what the sender fills an ESP packet's padding with. RFC 4303 2.4
// has it count up from 1; receivers accept anything.
type Padding uint8

const (
	PadSequential Padding = iota
	PadRandom
	PadZero
)

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

// Spec is all that an operator says of an SA: pure values, nothing live. NewSA
// copies the key octets; what lifetimes point to must not change.
type Spec struct {
	ID
	Src     netip.Addr // of Dst's family
	EncKey  []byte     // key, then salt for combined modes; nil in what SA.Spec returns
	AuthKey []byte
	Hard    *Lifetime // nil is no limit
	Soft    *Lifetime
	Created int64  // Unix seconds
	Reqid   uint32 // 0 is none
	Replay  uint32 // window in packets; 0 accepts replays
	Flags   uint32 // SADB_SAFLAGS_* and SADB_X_EXT_* as given; kept for dumps
	PID     uint32 // who added it, for dumps
	Seq     uint32 // of the message that added it, for dumps
	Encap   Encap  // as added; SA.Encap is what holds
	Mode    Mode
	Enc     uint8 // crypto/alg numbers
	Auth    uint8
	Pad     Padding
	ESN     bool // 64-bit sequence numbers (RFC 4303 2.2.1)
}
