package spd

import (
	"errors"
	"net/netip"
	"sync/atomic"
)

// Dir is the direction a policy judges, numbered as in PF_KEY (IPSEC_DIR_*).
type Dir uint8

const (
	In  Dir = 1 // packets that arrive
	Out Dir = 2 // packets that leave
)

// Action is what a policy does, numbered as in PF_KEY (IPSEC_POLICY_*).
type Action uint8

const (
	Discard Action = 0 // drop and count
	None    Action = 1 // send, or accept, as it is
	IPsec   Action = 2 // apply the requests
)

// Level is how much a request insists, numbered as in PF_KEY (IPSEC_LEVEL_*).
type Level uint8

const (
	LevelDefault Level = 0 // what the *_deflev tunables say
	LevelUse     Level = 1
	LevelRequire Level = 2
	LevelUnique  Level = 3 // require, by the SA with the request's reqid alone
)

// Mode is numbered as in PF_KEY (IPSEC_MODE_*).
type Mode uint8

const (
	ModeTransport Mode = 1
	ModeTunnel    Mode = 2
)

// ProtoAny is the wildcard among upper-layer protocols (IPSEC_ULPROTO_ANY).
const ProtoAny = 255

// Selector picks flows: both prefixes must hold the flow's addresses, and the
// protocol and ports must be equal to its own where they are not wildcards
// (ProtoAny, port 0). It is comparable: two policies of one direction with
// equal selectors cannot stand side by side.
type Selector struct {
	Src, Dst         netip.Prefix // of one family, masked
	SrcPort, DstPort uint16       // ICMP type and code where Proto is 1 or 58
	Proto            uint8
}

// Request is one transform that a policy asks for. Src and Dst are the
// tunnel's ends; they are invalid (zero) in transport mode without ends.
type Request struct {
	Proto    uint8 // IP protocol number: 50 ESP, 51 AH, 108 IPComp
	Mode     Mode
	Level    Level
	Reqid    uint32 // 0: any SA
	Src, Dst netip.Addr
}

// Policy is one entry of the database. All but LastUsed is immutable once it
// was added; its place alone is set anew when it is added again.
type Policy struct {
	ID       uint32 // [I] unique among all policies of the database
	Dir      Dir
	Sel      Selector
	Action   Action
	Requests []Request // applied in this order: the first is innermost
	Priority uint32    // smaller is earlier; insertion order among equals
	Created  int64     // Unix seconds

	LastUsed atomic.Int64 // [a] Unix seconds, 0 never; written by the data plane

	order order // [I] place in the ordered list, set by Add
}

var (
	ErrExists   = errors.New("a policy with this selector and direction exists")
	ErrNotFound = errors.New("no such policy")
)
