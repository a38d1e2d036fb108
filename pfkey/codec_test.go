package pfkey_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"ipsecd/pfkey"
)

// Layouts as FreeBSD's net/pfkeyv2.h and netinet headers declare them, so that
// encoding/binary checks the codec's offsets independently.
type (
	cMsg struct {
		Version, Type, Errno, SAType uint8
		Len, Reserved                uint16
		Seq, PID                     uint32
	}
	cExt struct{ Len, Type uint16 }
	cSA  struct {
		cExt
		SPI                      [4]byte
		Replay, State, Auth, Enc uint8
		Flags                    uint32
	}
	cSA2 struct {
		cExt
		Mode, Reserved1 uint8
		Reserved2       uint16
		Sequence, Reqid uint32
	}
	cLifetime struct {
		cExt
		Allocations             uint32
		Bytes, AddTime, UseTime uint64
	}
	cAddress struct {
		cExt
		Proto, PrefixLen uint8
		Reserved         uint16
	}
	cIn struct {
		Len, Family uint8
		Port        [2]byte
		Addr        [4]byte
		Zero        [8]byte
	}
	cIn6 struct {
		Len, Family uint8
		Port        [2]byte
		FlowInfo    uint32
		Addr        [16]byte
		Scope       uint32
	}
	cKey struct {
		cExt
		Bits, Reserved uint16
	}
	cPolicy struct {
		cExt
		Type         uint16
		Dir, Scope   uint8
		ID, Priority uint32
	}
	cRequest struct {
		Len, Proto  uint16
		Mode, Level uint8
		Reqid       uint16
	}
	cReplay struct {
		cExt
		Replay uint32
	}
	cNATTType struct {
		cExt
		Type     uint8
		Reserved [3]uint8
	}
	cNATTPort struct {
		cExt
		Port     [2]byte
		Reserved uint16
	}
	cSupported struct {
		cExt
		Reserved uint32
	}
	cAlg struct {
		ID, IVLen                  uint8
		MinBits, MaxBits, Reserved uint16
	}
)

// pack lays parts end to end in host order and sets the header's length.
func pack(t testing.TB, parts ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, p := range parts {
		if err := binary.Write(&b, binary.NativeEndian, p); err != nil {
			t.Fatal(err)
		}
	}
	out := b.Bytes()
	binary.NativeEndian.PutUint16(out[4:], uint16(len(out)/8))
	return out
}

func in4(addr string, port uint16) cIn {
	return cIn{Len: 16, Family: 2, Port: [2]byte{byte(port >> 8), byte(port)}, Addr: netip.MustParseAddr(addr).As4()}
}

func in6(addr string, port uint16) cIn6 {
	return cIn6{Len: 28, Family: 28, Port: [2]byte{byte(port >> 8), byte(port)}, Addr: netip.MustParseAddr(addr).As16()}
}

func ptr[T any](v T) *T { return &v }

func TestLayouts(t *testing.T) {
	key := []byte("0123456789abcdef0123")
	tests := []struct {
		name  string
		bytes []byte
		m     pfkey.Message
	}{
		{
			"bare header",
			pack(t, cMsg{Version: 2, Type: 200, Errno: 17, SAType: 3, Reserved: 9, Seq: 7, PID: 4242}),
			pfkey.Message{Type: pfkey.BEGIN, Errno: 17, SAType: 3, Reserved: 9, Seq: 7, PID: 4242},
		},
		{
			"add with everything, IPv4",
			pack(t, cMsg{Version: 2, Type: 3, SAType: 3, Seq: 1, PID: 2},
				cSA{cExt{2, 1}, [4]byte{0, 0, 0x10, 0x01}, 4, 1, 5, 12, 0x40},
				cSA2{cExt: cExt{2, 19}, Mode: 2, Sequence: 99, Reqid: 1 << 20},
				cReplay{cExt{1, 26}, 2040},
				cLifetime{cExt{4, 3}, 1, 1 << 40, 3, 4},
				cLifetime{cExt{4, 4}, 5, 6, 7, 8},
				cLifetime{cExt{4, 2}, 9, 10, 1 << 33, 12},
				cAddress{cExt{3, 5}, 255, 32, 0}, in4("192.0.2.1", 4500),
				cAddress{cExt{3, 6}, 255, 32, 0}, in4("198.51.100.2", 0),
				cKey{cExt{5, 8}, 256, 0}, []byte("0123456789abcdef0123456789abcdef"),
				cKey{cExt{4, 9}, 160, 0}, key, [4]byte{},
				cNATTType{cExt{1, 20}, 2, [3]uint8{}},
				cNATTPort{cExt{1, 21}, [2]byte{0x11, 0x94}, 0},
				cNATTPort{cExt{1, 22}, [2]byte{0x27, 0x10}, 0},
				cAddress{cExt{3, 23}, 0, 32, 0}, in4("10.0.0.1", 0),
				cAddress{cExt{3, 24}, 0, 32, 0}, in4("10.0.0.2", 0),
			),
			pfkey.Message{
				Type: pfkey.ADD, SAType: pfkey.SATypeESP, Seq: 1, PID: 2,
				SA:      &pfkey.SA{SPI: 0x1001, Replay: 4, State: pfkey.StateMature, Auth: 5, Enc: 12, Flags: 0x40},
				SA2:     &pfkey.SA2{Mode: pfkey.ModeTunnel, Sequence: 99, Reqid: 1 << 20},
				Replay:  ptr(uint32(2040)),
				Hard:    &pfkey.Lifetime{Allocations: 1, Bytes: 1 << 40, AddTime: 3, UseTime: 4},
				Soft:    &pfkey.Lifetime{Allocations: 5, Bytes: 6, AddTime: 7, UseTime: 8},
				Current: &pfkey.Lifetime{Allocations: 9, Bytes: 10, AddTime: 1 << 33, UseTime: 12},
				Src:     &pfkey.Address{Proto: 255, PrefixLen: 32, Addr: netip.MustParseAddr("192.0.2.1"), Port: 4500},
				Dst:     &pfkey.Address{Proto: 255, PrefixLen: 32, Addr: netip.MustParseAddr("198.51.100.2")},
				AuthKey: &pfkey.Key{Bits: 256, Data: []byte("0123456789abcdef0123456789abcdef")},
				EncKey:  &pfkey.Key{Bits: 160, Data: key},
				NATT:    &pfkey.NATT{Type: pfkey.TypeNATT, SrcPort: 4500, DstPort: 10000},
				OAI:     &pfkey.Address{PrefixLen: 32, Addr: netip.MustParseAddr("10.0.0.1")},
				OAR:     &pfkey.Address{PrefixLen: 32, Addr: netip.MustParseAddr("10.0.0.2")},
			},
		},
		{
			"policy with requests of both kinds, IPv6",
			pack(t, cMsg{Version: 2, Type: 14},
				cAddress{cExt{5, 5}, 6, 64, 0}, in6("fd00::", 80), uint32(0),
				cAddress{cExt{5, 6}, 6, 128, 0}, in6("fd01::7", 443), uint32(0),
				cPolicy{cExt{2 + 1 + 8, 18}, 2, 1, 1, 77, 0x80000000},
				cRequest{8, 51, 1, 2, 0},
				cRequest{64, 50, 2, 3, 300}, in6("fd00::1", 0), in6("fd00::2", 0),
			),
			pfkey.Message{
				Type: pfkey.SPDADD,
				Src:  &pfkey.Address{Proto: 6, PrefixLen: 64, Addr: netip.MustParseAddr("fd00::"), Port: 80},
				Dst:  &pfkey.Address{Proto: 6, PrefixLen: 128, Addr: netip.MustParseAddr("fd01::7"), Port: 443},
				Policy: &pfkey.Policy{
					Type: pfkey.PolicyIPsec, Dir: pfkey.DirIn, ID: 77, Priority: 0x80000000,
					Requests: []pfkey.Request{
						{Proto: 51, Mode: pfkey.ModeTransport, Level: pfkey.LevelRequire},
						{Proto: 50, Mode: pfkey.ModeTunnel, Level: pfkey.LevelUnique, Reqid: 300,
							Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00::2")},
					},
				},
			},
		},
		{
			"update to null, which has a key of no bits, with ESN",
			pack(t, cMsg{Version: 2, Type: 2, SAType: 3},
				cSA{cExt{2, 1}, [4]byte{0, 0, 0x10, 0x01}, 4, 1, 3, 11, 0x600},
				cKey{cExt{4, 8}, 160, 0}, key, [4]byte{},
				cKey{cExt: cExt{1, 9}},
			),
			pfkey.Message{
				Type: pfkey.UPDATE, SAType: pfkey.SATypeESP,
				SA: &pfkey.SA{SPI: 0x1001, Replay: 4, State: pfkey.StateMature, Auth: 3, Enc: 11,
					Flags: pfkey.FlagESN | pfkey.FlagPadZero},
				AuthKey: &pfkey.Key{Bits: 160, Data: key},
				EncKey:  &pfkey.Key{Data: []byte{}},
			},
		},
		{
			"a policy by its ID",
			pack(t, cMsg{Version: 2, Type: 16}, cPolicy{cExt: cExt{2, 18}, Scope: 1, ID: 77}),
			pfkey.Message{Type: pfkey.SPDGET, Policy: &pfkey.Policy{ID: 77}},
		},
		{
			"algorithms and a text",
			pack(t, cMsg{Version: 2, Type: 7, SAType: 3},
				cSupported{cExt: cExt{2, 14}}, cAlg{ID: 5, MinBits: 256, MaxBits: 256},
				cSupported{cExt: cExt{3, 15}}, cAlg{ID: 12, IVLen: 16, MinBits: 128, MaxBits: 256}, cAlg{20, 8, 160, 288, 0},
				cExt{2, 201}, []byte("why not ...\x00"),
			),
			pfkey.Message{
				Type: pfkey.REGISTER, SAType: pfkey.SATypeESP,
				SupAuth: []pfkey.SupportedAlg{{ID: 5, MinBits: 256, MaxBits: 256}},
				SupEnc:  []pfkey.SupportedAlg{{ID: 12, IVLen: 16, MinBits: 128, MaxBits: 256}, {ID: 20, IVLen: 8, MinBits: 160, MaxBits: 288}},
				Text:    "why not ...",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.m.Append([]byte("before"))
			if err != nil {
				t.Fatal(err)
			}
			if want := append([]byte("before"), tt.bytes...); !bytes.Equal(got, want) {
				t.Errorf("Append:\n%swant\n%s", hex.Dump(got), hex.Dump(want))
			}
			m, err := pfkey.Decode(tt.bytes)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*m, tt.m) {
				t.Errorf("Decode: %+v, want %+v", *m, tt.m)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	header := cMsg{Version: 2, Type: 3, SAType: 3, Seq: 5, PID: 6}
	sa := cSA{cExt: cExt{2, 1}}
	src := cAddress{cExt: cExt{3, 5}}
	policy := func(units uint16) cPolicy { return cPolicy{cExt: cExt{units, 18}, Type: 2, Dir: 2} }
	family := in4("10.0.0.1", 0)
	family.Family = 24
	scoped := in6("fe80::1", 0)
	scoped.Scope = 2
	text := func(octets int) []byte { return pack(t, header, cExt{uint16(octets / 8), 201}, make([]byte, octets-4)) }
	if _, err := pfkey.Decode(text(pfkey.MaxMessage - 16)); err != nil {
		t.Errorf("the longest message: %v", err)
	}
	overlong := text(pfkey.MaxMessage - 16 + 8)
	tests := []struct {
		name  string
		bytes []byte
		want  error
	}{
		{"nothing", nil, pfkey.ErrLength},
		{"half a header", make([]byte, 15), pfkey.ErrLength},
		{"version 1", pack(t, cMsg{Version: 1}), pfkey.ErrVersion},
		{"shorter than it says", pack(t, header, sa)[:24], pfkey.ErrLength},
		{"longer than it says", append(pack(t, header), make([]byte, 8)...), pfkey.ErrLength},
		{"no whole units", append(pack(t, header), 0, 0, 0), pfkey.ErrLength},
		{"over the limit", overlong, pfkey.ErrLength},
		{"empty extension", pack(t, header, cExt{0, 1}, uint32(0)), pfkey.ErrLength},
		{"extension past the end", pack(t, header, cSA{cExt: cExt{3, 1}}), pfkey.ErrLength},
		{"unknown extension", pack(t, header, cExt{1, 13}, uint32(0)), pfkey.ErrExtension},
		{"extension number of 16 bits", pack(t, header, cExt{1, 256 + 201}, uint32(0)), pfkey.ErrExtension},
		{"extension twice", pack(t, header, sa, sa), pfkey.ErrDuplicate},
		{"short SA", pack(t, header, cExt{1, 1}, uint32(0)), pfkey.ErrLength},
		{"long SA", pack(t, header, cSA{cExt: cExt{3, 1}}, uint64(0)), pfkey.ErrLength},
		{"short lifetime", pack(t, header, cExt{3, 3}, make([]byte, 20)), pfkey.ErrLength},
		{"long hard lifetime", pack(t, header, cLifetime{cExt: cExt{5, 3}}, uint64(0)), pfkey.ErrLength},
		{"long soft lifetime", pack(t, header, cLifetime{cExt: cExt{5, 4}}, uint64(0)), pfkey.ErrLength},
		{"long current lifetime", pack(t, header, cLifetime{cExt: cExt{5, 2}}, uint64(0)), pfkey.ErrLength},
		{"short address", pack(t, header, cAddress{cExt: cExt{2, 5}}, uint64(0)), pfkey.ErrLength},
		{"long address", pack(t, header, cAddress{cExt: cExt{4, 5}}, in4("10.0.0.1", 0), uint64(0)), pfkey.ErrLength},
		{"family of another system", pack(t, header, src, family), pfkey.ErrValue},
		{"IPv6 cut to an IPv4 length", pack(t, header, src, cIn{Len: 16, Family: 28}), pfkey.ErrValue},
		{"sockaddr past the end", pack(t, header, src, cIn{Len: 17, Family: 2}), pfkey.ErrLength},
		{"empty sockaddr", pack(t, header, src, cIn{Len: 0, Family: 2}), pfkey.ErrValue},
		{"scope", pack(t, header, cAddress{cExt: cExt{5, 5}}, scoped, uint32(0)), pfkey.ErrValue},
		{"key shorter than its bits", pack(t, header, cKey{cExt{2, 9}, 65, 0}, uint64(0)), pfkey.ErrLength},
		{"key longer than its bits", pack(t, header, cKey{cExt{3, 9}, 64, 0}, uint64(0), uint64(0)), pfkey.ErrLength},
		{"NAT-T without ports", pack(t, header, cNATTType{cExt{1, 20}, 2, [3]uint8{}}), pfkey.ErrMissing},
		{"one NAT-T port alone", pack(t, header, cNATTPort{cExt: cExt{1, 22}}), pfkey.ErrMissing},
		{"policy of an interface", pack(t, header, cPolicy{cExt: cExt{2, 18}, Scope: 2}), pfkey.ErrValue},
		{"request of no length", pack(t, header, policy(3), cRequest{0, 50, 2, 2, 0}), pfkey.ErrLength},
		{"request past the end", pack(t, header, policy(3), cRequest{16, 50, 2, 2, 0}), pfkey.ErrLength},
		{"request with one end", pack(t, header, policy(5), cRequest{24, 50, 2, 2, 0}, in4("10.0.0.1", 0)), pfkey.ErrLength},
		{"request with a port at its second end", pack(t, header, policy(7), cRequest{40, 50, 2, 2, 0}, in4("10.0.0.1", 0), in4("10.0.0.2", 9)), pfkey.ErrValue},
		{"request with a port at its first end", pack(t, header, policy(7), cRequest{40, 50, 2, 2, 0}, in4("10.0.0.1", 9), in4("10.0.0.2", 0)), pfkey.ErrValue},
		{"request of two families", pack(t, header, policy(9), cRequest{52, 50, 2, 2, 0}, in4("10.0.0.1", 0), in6("fd00::1", 0), uint32(0)), pfkey.ErrValue},
		{"request with three ends", pack(t, header, policy(9), cRequest{56, 50, 2, 2, 0}, in4("10.0.0.1", 0), in4("10.0.0.2", 0), in4("10.0.0.3", 0)), pfkey.ErrLength},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, err := pfkey.Decode(tt.bytes)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %+v, %v, want %v", m, err, tt.want)
			}
		})
	}
}

func TestDecodeHeaderOfMalformedMessage(t *testing.T) {
	b := pack(t, cMsg{Version: 2, Type: 14, Seq: 5, PID: 6}, cExt{9, 999}, uint32(0))
	m, err := pfkey.DecodeHeader(b)
	if err != nil || m.Type != pfkey.SPDADD || m.Seq != 5 || m.PID != 6 {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestDecodedMessageOwnsItsOctets(t *testing.T) {
	b := pack(t, cMsg{Version: 2, Type: 3}, cKey{cExt{2, 9}, 64, 0}, []byte("12345678"))
	m, err := pfkey.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	if string(m.EncKey.Data) != "12345678" {
		t.Errorf("the key changed with the buffer")
	}
}

func TestAppendRefuses(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	const longestText = pfkey.MaxMessage - 16 - 4
	if b, err := (&pfkey.Message{Text: strings.Repeat("x", longestText)}).Append(nil); len(b) != pfkey.MaxMessage || err != nil {
		t.Errorf("the longest message: %d octets, %v", len(b), err)
	}
	request := func(r pfkey.Request) *pfkey.Policy { return &pfkey.Policy{Requests: []pfkey.Request{r}} }
	tests := []struct {
		name string
		m    pfkey.Message
		want error
	}{
		{"no address", pfkey.Message{Src: &pfkey.Address{}}, pfkey.ErrValue},
		{"zone", pfkey.Message{Src: &pfkey.Address{Addr: netip.MustParseAddr("fe80::1%eth0")}}, pfkey.ErrValue},
		{"bits and octets differ", pfkey.Message{EncKey: &pfkey.Key{Bits: 128, Data: make([]byte, 8)}}, pfkey.ErrLength},
		{"wide reqid", pfkey.Message{Policy: request(pfkey.Request{Reqid: 1 << 16})}, pfkey.ErrValue},
		{"one end", pfkey.Message{Policy: request(pfkey.Request{Src: v4})}, pfkey.ErrValue},
		{"two families", pfkey.Message{Policy: request(pfkey.Request{Src: v4, Dst: v6})}, pfkey.ErrValue},
		{"one unit too long", pfkey.Message{Text: strings.Repeat("x", longestText+1)}, pfkey.ErrLength},
		{"long text", pfkey.Message{Text: strings.Repeat("x", pfkey.MaxMessage)}, pfkey.ErrLength},
		{"too much in all", pfkey.Message{Policy: &pfkey.Policy{Requests: make([]pfkey.Request, 8000)}, Text: strings.Repeat("x", 4000)}, pfkey.ErrLength},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := tt.m.Append(nil); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestKeysAreNeverFormatted(t *testing.T) {
	m := &pfkey.Message{EncKey: &pfkey.Key{Bits: 64, Data: []byte("SECRETKY")}}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	out := string(text)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		out += fmt.Sprintf(verb, m.EncKey) + fmt.Sprintf(verb, *m.EncKey) + fmt.Sprintf(verb, *m)
	}
	for _, leak := range []string{"SECRETKY", "5345435245544b59", "83 69 67", "0x53", "U0VDUkVUS1k"} {
		if strings.Contains(out, leak) {
			t.Errorf("%q is in %q", leak, out)
		}
	}
	if got := m.EncKey.String(); got != "key of 64 bits, not shown" {
		t.Errorf("got %q", got)
	}
}

func TestClearKeys(t *testing.T) {
	enc, auth := []byte("encryption"), []byte("authentication")
	m := pfkey.Message{EncKey: &pfkey.Key{Bits: 80, Data: enc}, AuthKey: &pfkey.Key{Bits: 112, Data: auth}}
	m.ClearKeys()
	if !bytes.Equal(enc, make([]byte, len(enc))) || !bytes.Equal(auth, make([]byte, len(auth))) {
		t.Errorf("left are %q and %q", enc, auth)
	}
	new(pfkey.Message).ClearKeys()
}
