package dataplane_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"ipsecd/packet"
	"ipsecd/sad"
)

// interopCipher is a cipher by its names in the setkey language, in scapy and in
// Wireshark's table of SAs.
type interopCipher struct {
	name, scapy, tshark string
	keys                []int // octets, salt included
	aead                bool
}

// interopMAC is an integrity algorithm by the same.
type interopMAC struct {
	name, scapy, tshark string
	key, icv            int // octets
}

var (
	interopCiphers = []interopCipher{
		{"aes-gcm-16", "AES-GCM", "AES-GCM with 16 octet ICV [RFC4106]", []int{20, 28, 36}, true},
		{"aes-cbc", "AES-CBC", "AES-CBC [RFC3602]", []int{16, 24, 32}, false},
		{"null", "NULL", "NULL", []int{0}, false},
	}
	interopMACs = []interopMAC{
		{"hmac-sha1", "HMAC-SHA1-96", "HMAC-SHA-1-96 [RFC2404]", 20, 12},
		{"hmac-sha2-256", "SHA2-256-128", "HMAC-SHA-256-128 [RFC4868]", 32, 16},
		{"hmac-sha2-384", "SHA2-384-192", "HMAC-SHA-384-192 [RFC4868]", 48, 24},
		{"hmac-sha2-512", "SHA2-512-256", "HMAC-SHA-512-256 [RFC4868]", 64, 32},
	}
	interopNoMAC = interopMAC{tshark: "NULL"}
)

// interopPair is two addresses of one family.
type interopPair struct{ src, dst string }

var (
	outer4, inner4 = interopPair{"192.0.2.1", "192.0.2.2"}, interopPair{"10.1.0.1", "10.2.0.1"}
	outer6, inner6 = interopPair{"2001:db8::1", "2001:db8::2"}, interopPair{"fd00:a::1", "fd00:b::1"}
)

func (p interopPair) v6() bool { return strings.Contains(p.src, ":") }

// interopShape is a mode and the families of what carries and what is carried,
// which are one in transport mode.
type interopShape struct {
	name         string
	tunnel       bool
	outer, inner interopPair
}

var interopShapes = []interopShape{
	{"tunnel 4in4", true, outer4, inner4},
	{"tunnel 6in6", true, outer6, inner6},
	{"tunnel 4in6", true, outer6, inner4},
	{"tunnel 6in4", true, outer4, inner6},
	{"transport v4", false, outer4, outer4},
	{"transport v6", false, outer6, outer6},
}

// interopSalt is how many octets of an AEAD's key are salt.
const interopSalt = 4

// interopPort is that of both ends of what goes in UDP.
const interopPort = 4500

// interopCase is one SA that both ends agree on.
type interopCase struct {
	interopShape
	cipher          interopCipher
	mac             interopMAC
	encKey, authKey []byte
	udp, esn        bool
	spi             uint32
}

// interopCases is every suite in every shape, raw and in UDP, with and without
// extended sequence numbers. The keys are the same in each run.
func interopCases() []interopCase {
	var all []interopCase
	random := rand.NewChaCha8([32]byte([]byte("keys of the interoperation tests")))
	octets := func(n int) []byte {
		b := make([]byte, n)
		random.Read(b)
		return b
	}
	for _, suite := range interopSuites() {
		for _, shape := range interopShapes {
			for _, udp := range []bool{false, true} {
				for _, esn := range []bool{false, true} {
					c := suite
					c.interopShape, c.udp, c.esn = shape, udp, esn
					c.encKey, c.authKey = octets(len(c.encKey)), octets(c.mac.key)
					c.spi = 0x1000 + uint32(len(all))
					all = append(all, c)
				}
			}
		}
	}
	return all
}

// interopSuites has each cipher at each length of key with each MAC, AEADs
// without. Their keys are of the right length only.
func interopSuites() []interopCase {
	var all []interopCase
	for _, cipher := range interopCiphers {
		macs := interopMACs
		if cipher.aead {
			macs = []interopMAC{interopNoMAC}
		}
		for _, n := range cipher.keys {
			for _, mac := range macs {
				all = append(all, interopCase{cipher: cipher, mac: mac, encKey: make([]byte, n)})
			}
		}
	}
	return all
}

func (c *interopCase) String() string {
	s := fmt.Sprintf("%s/%d %s", c.cipher.name, len(c.encKey)*8, c.mac.name)
	if c.cipher.aead {
		s = fmt.Sprintf("%s/%d", c.cipher.name, (len(c.encKey)-interopSalt)*8)
	}
	s += " " + c.name
	if c.udp {
		s += " udp"
	}
	if c.esn {
		s += " esn"
	}
	return s
}

// first is the sequence number of the first packet. With extended ones the
// packets cross 2^32.
func (c *interopCase) first() uint64 {
	if c.esn {
		return 1<<32 - 3
	}
	return 1
}

// config is the SA in the setkey language and, in a direction, the policy that
// wants it.
func (c *interopCase) config(direction string) string {
	proto, port, mode, ends, flags := "esp", "", "transport", "", ""
	if c.udp {
		proto, port = "esp-udp", fmt.Sprintf("[%d]", interopPort)
	}
	if c.tunnel {
		mode, ends = "tunnel", c.outer.src+"-"+c.outer.dst
	}
	if c.esn {
		flags = "-esn "
	}
	suite := "-E " + c.cipher.name
	if len(c.encKey) > 0 {
		suite += fmt.Sprintf(" %#x", c.encKey)
	}
	if !c.cipher.aead {
		suite += fmt.Sprintf(" -A %s %#x", c.mac.name, c.authKey)
	}
	return fmt.Sprintf(`add %s%s %s%s %s %d -m %s -r 32 %s%s;
		spdadd %s %s any -P %s ipsec esp/%s/%s/require;`,
		c.outer.src, port, c.outer.dst, port, proto, c.spi, mode, flags, suite,
		c.inner.src, c.inner.dst, direction, mode, ends)
}

// packets are those that the case can carry. In transport mode a UDP socket, which
// neither sends nor shows the headers in front of UDP, is no way for packets with
// IPv4 options or extension headers. (Destination options alone go inside ESP here,
// and may stand in front of it: scapy does as Linux and leaves them there.)
func (c *interopCase) packets(t *testing.T) []interopPacket {
	t.Helper()
	all := interopPackets(t, c.inner, int(c.spi%3))
	if c.tunnel || !c.udp {
		return all
	}
	plain := all[0].head
	return slices.DeleteFunc(all, func(p interopPacket) bool { return p.head != plain || p.next == packet.ProtoDstOpts })
}

// engine is one end, at the sequence number before the first.
func (c *interopCase) engine(t *testing.T, direction string) *testEngine {
	t.Helper()
	e := newTestEngine(t)
	e.load(t, c.config(direction))
	sa := e.SAD.Get(sad.ID{SPI: c.spi, Proto: sad.ProtoESP, Dst: netip.MustParseAddr(c.outer.dst)})
	sa.Resume(c.first()-1, c.first()-1)
	return e
}

// seal has the engine seal every packet.
func (c *interopCase) seal(t *testing.T, in []interopPacket) [][]byte {
	t.Helper()
	e := c.engine(t, "out")
	sealed, clear := e.send(octetsOf(in)...)
	if len(sealed) != len(in) || len(clear) != 0 {
		t.Fatalf("%v: %d sealed, %d in clear, of %d: %v", c, len(sealed), len(clear), len(in), dropsOf(e))
	}
	return sealed
}

// dropsOf names what an engine dropped, for messages.
func dropsOf(e *testEngine) map[packet.Drop]uint64 {
	drops := make(map[packet.Drop]uint64)
	for d, n := range e.Drops.All() {
		drops[d] = n
	}
	return drops
}

// flipICV returns the packets, each with one bit of its last n octets changed, a
// different one each time.
func flipICV(pkts [][]byte, n int) [][]byte {
	var flipped [][]byte
	for i, p := range pkts {
		bit := (i*37 + 1) % (n * 8)
		flipped = append(flipped, edit(p, -1-bit/8, p[len(p)-1-bit/8]^1<<(bit%8)))
	}
	return flipped
}

// icvLen is the length of the ICV in octets.
func (c *interopCase) icvLen() int {
	if c.cipher.aead {
		return 16
	}
	return c.mac.icv
}

// missing skips the test for want of another implementation, or fails it where
// none may be wanting.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("IPSECD_INTEROP") == "required" || os.Getenv("IPSECD_E2E") == "required" {
		t.Fatal(what)
	}
	t.Skip(what)
}
