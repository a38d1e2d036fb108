// Package pfkey turns PF_KEY v2 messages (RFC 2367 and KAME's extensions) into
// structs and back, in the dialect of control.sock, which our own setkey speaks.
//
// The numbers and layouts are KAME's as FreeBSD has them: sockaddrs that begin
// with their length, AF_INET6 28, requests with a 16-bit reqid, X_SA_REPLAY in
// packets. Integers are in host order; SPIs, ports and addresses in network
// order. Every extension begins and ends on a multiple of 8 octets. From number
// 200 up the dialect is ours: the message types BEGIN, COMMIT and ABORT, which
// are bare headers, and the extension ERROR_TEXT (201), which a refusal carries
// where there is more to say than an errno:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-------------------------------+-------------------------------+
//	|      length, in 8 octets      |              201              |
//	+-------------------------------+-------------------------------+
//	|              UTF-8 text, padded with zeros ...                |
//	+---------------------------------------------------------------+
//
// Decode is strict, and every length it meets is hostile until checked. It
// checks form alone; what a message may ask for is the key engine's business.
// The package has no state: all of it may be called concurrently.
package pfkey

import "net/netip"

// Message types: RFC 2367 section 3.1 and KAME's.
const (
	GETSPI    uint8 = 1
	UPDATE    uint8 = 2
	ADD       uint8 = 3
	DELETE    uint8 = 4
	GET       uint8 = 5
	ACQUIRE   uint8 = 6
	REGISTER  uint8 = 7
	EXPIRE    uint8 = 8
	FLUSH     uint8 = 9
	DUMP      uint8 = 10
	SPDUPDATE uint8 = 13
	SPDADD    uint8 = 14
	SPDDELETE uint8 = 15
	SPDGET    uint8 = 16 // by Policy.ID
	SPDDUMP   uint8 = 18
	SPDFLUSH  uint8 = 19

	// Ours, on control.sock alone. Policy changes between BEGIN and COMMIT are
	// published together at COMMIT; ABORT, or the socket's end, forgets them.
	BEGIN  uint8 = 200
	COMMIT uint8 = 201
	ABORT  uint8 = 202
)

// SA types.
const (
	SATypeUnspec uint8 = 0
	SATypeAH     uint8 = 2
	SATypeESP    uint8 = 3
	SATypeIPComp uint8 = 9
	SATypeTCP    uint8 = 11
)

// SA states.
const (
	StateMature uint8 = 1
	StateDead   uint8 = 3
)

// Message is one PF_KEY message in the form all dialects share. An extension
// that is absent is nil. SPIs and ports are in host order here; the codec
// makes them big-endian.
type Message struct {
	Type     uint8
	Errno    uint8
	SAType   uint8
	Reserved uint16 // the reference count, in dumps
	Seq      uint32
	PID      uint32

	SA      *SA
	SA2     *SA2
	Current *Lifetime
	Hard    *Lifetime
	Soft    *Lifetime
	Src     *Address
	Dst     *Address
	AuthKey *Key
	EncKey  *Key
	Policy  *Policy

	NATT    *NATT    // X_NAT_T_TYPE with both ports
	OAI     *Address // X_NAT_T_OAI
	OAR     *Address // X_NAT_T_OAR
	Replay  *uint32  // X_SA_REPLAY: window in packets
	SupAuth []SupportedAlg
	SupEnc  []SupportedAlg

	Text string // ERROR_TEXT: why a request was refused, for people
}

// SA is sadb_sa.
type SA struct {
	SPI    uint32
	Replay uint8 // octets of bitmap, as the 8-bit field has it; Message.Replay is exact
	State  uint8
	Auth   uint8
	Enc    uint8
	Flags  uint32 // FlagCycSeq and on
}

// SA2 is sadb_x_sa2.
type SA2 struct {
	Mode     uint8
	Sequence uint32
	Reqid    uint32
}

// Lifetime is sadb_lifetime. In Current, AddTime and UseTime are Unix seconds.
type Lifetime struct {
	Allocations uint32
	Bytes       uint64
	AddTime     uint64
	UseTime     uint64
}

// Address is sadb_address with its sockaddr.
type Address struct {
	Proto     uint8
	PrefixLen uint8
	Addr      netip.Addr
	Port      uint16
}

// Key is sadb_key. It formats as its length alone, so that no key gets into a
// log.
type Key struct {
	Bits uint16
	Data []byte // (Bits+7)/8 octets
}

// NATT is the UDP encapsulation of an SA: SADB_X_EXT_NAT_T_TYPE, _SPORT and
// _DPORT.
type NATT struct {
	Type             uint8 // 2: UDP_ENCAP_ESPINUDP
	SrcPort, DstPort uint16
}

// Policy is sadb_x_policy with its requests.
type Policy struct {
	Type     uint16 // IPSEC_POLICY_*: 0 discard, 1 none, 2 ipsec
	Dir      uint8  // 1 in, 2 out
	ID       uint32
	Priority uint32
	Requests []Request
}

// Request is sadb_x_ipsecrequest; Src and Dst are invalid where it has none.
// The wire has 16 bits for Reqid.
type Request struct {
	Proto    uint16 // IP protocol number
	Mode     uint8
	Level    uint8
	Reqid    uint32
	Src, Dst netip.Addr
}

// SupportedAlg is sadb_alg.
type SupportedAlg struct {
	ID      uint8
	IVLen   uint8 // octets, as SADB_EXT_SUPPORTED has it
	MinBits uint16
	MaxBits uint16
}
