package config

import (
	"fmt"
	"io"
	"net/netip"
)

// Pos is a place in a setkey file. Line and Col count from 1; Col counts
// octets.
type Pos struct {
	File      string
	Line, Col int
}

func (p Pos) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col) }

// Statement is one statement of the setkey language.
type Statement interface {
	Pos() Pos // of its first word
}

// Proto is the protocol word of a statement.
type Proto uint8

const (
	ProtoAny    Proto = iota // no word: every type, where the statement allows it
	ProtoESP                 // esp
	ProtoESPUDP              // esp-udp: esp, UDP-encapsulated
)

// Mode is the argument of -m and the mode of a policy's rule.
type Mode uint8

const (
	ModeAny Mode = iota
	ModeTransport
	ModeTunnel
)

// SAID names an SA by addresses, protocol and SPI.
type SAID struct {
	At       Pos
	Proto    Proto
	Src, Dst netip.Addr
	SPI      uint32
}

func (id SAID) Pos() Pos { return id.At }

// NATT is the UDP encapsulation that a statement asks for: ports in the
// addresses of an esp-udp SA, or -natt. OAI and OAR are invalid where not
// given.
type NATT struct {
	SrcPort, DstPort uint16
	OAI, OAR         netip.Addr
}

// Key holds key octets. It never formats them.
type Key []byte

// String says how long the key is and nothing else.
func (k Key) String() string { return fmt.Sprintf("key of %d bits, not shown", 8*len(k)) }

// Format makes every verb, %x and %#v too, print what String does.
func (k Key) Format(s fmt.State, _ rune) { io.WriteString(s, k.String()) }

// MarshalText keeps the octets out of JSON, and so out of structured logs.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Padding is what the sender fills ESP padding with.
type Padding uint8

const (
	PadSequential Padding = iota // 1, 2, 3 and on (RFC 4303 section 2.4)
	PadRandom
	PadZero
)

// Add is the add statement. Enc and Auth are numbers of crypto/alg.
type Add struct {
	SAID
	Mode    Mode
	Replay  uint32 // octets of bitmap: packets are eight times that
	Reqid   uint32
	ESN     bool
	Pad     Padding
	Enc     uint8
	EncKey  Key // nil where a cipher that needs none has none
	Auth    uint8
	AuthKey Key
	NATT    *NATT
}

// Update is the update statement: add of an SA that is there. Without
// algorithms (Enc 0) it changes the ports of NATT, and nothing else is given.
type Update struct{ Add }

// Get and Delete name one SA; DeleteAll names all of a pair and protocol, its
// SPI is 0.
type (
	Get       struct{ SAID }
	Delete    struct{ SAID }
	DeleteAll struct{ SAID }
)

// Flush and Dump act on the SAD.
type (
	Flush struct {
		At    Pos
		Proto Proto
	}
	Dump struct {
		At    Pos
		Proto Proto
	}
)

// SPDFlush and SPDDump act on the SPD.
type (
	SPDFlush struct{ At Pos }
	SPDDump  struct{ At Pos }
)

func (s Flush) Pos() Pos    { return s.At }
func (s Dump) Pos() Pos     { return s.At }
func (s SPDFlush) Pos() Pos { return s.At }
func (s SPDDump) Pos() Pos  { return s.At }

// UpperAny is the wildcard protocol of a selector.
const UpperAny = 255

// Selector is the range of packets of an spdadd, spdupdate or spddelete. Port 0 is any.
// For ICMP and ICMPv6 SrcPort is the type and DstPort the code.
type Selector struct {
	Src, Dst         netip.Prefix // masked, of one family
	SrcPort, DstPort uint16
	Upper            uint8
}

// Dir, Action and Level have PF_KEY's numbers.
type (
	Dir    uint8
	Action uint8
	Level  uint8
)

const (
	In  Dir = 1
	Out Dir = 2

	Discard Action = 0
	None    Action = 1
	IPsec   Action = 2

	LevelDefault Level = 0
	LevelUse     Level = 1
	LevelRequire Level = 2
	LevelUnique  Level = 3
)

// Rule is one protocol/mode/ends/level of a policy. Src and Dst are invalid in
// transport mode without ends.
type Rule struct {
	Proto    Proto
	Mode     Mode
	Src, Dst netip.Addr
	Level    Level
	Reqid    uint32 // of unique:N; 0 where not given
}

// SPDAdd is the spdadd statement.
type SPDAdd struct {
	At     Pos
	Sel    Selector
	Dir    Dir
	Action Action
	Rules  []Rule // in the order written: the first is innermost
}

// SPDUpdate is the spdupdate statement: spdadd that replaces the policy with its
// selector and direction, if there is one.
type SPDUpdate struct{ SPDAdd }

// SPDDelete is the spddelete statement.
type SPDDelete struct {
	At  Pos
	Sel Selector
	Dir Dir
}

func (s SPDAdd) Pos() Pos    { return s.At }
func (s SPDDelete) Pos() Pos { return s.At }
