package command

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ipsecd/config"
	"ipsecd/crypto/alg"
	"ipsecd/pfkey"
)

var equal = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmpopts.EquateEmpty(), // keys of no bits
}

func address(s string, proto, bits uint8, port uint16) *pfkey.Address {
	return &pfkey.Address{Proto: proto, PrefixLen: bits, Addr: netip.MustParseAddr(s), Port: port}
}

func packets(n uint32) *uint32 { return &n }

func TestMessage(t *testing.T) {
	src, dst := address("192.0.2.1", 255, 32, 0), address("192.0.2.2", 255, 32, 0)
	gcmKey := &pfkey.Key{Bits: 160, Data: []byte("0123456789abcdefsalt")}
	for _, tt := range []struct {
		src  string
		want *pfkey.Message
	}{
		{`add 192.0.2.1 192.0.2.2 esp 0x1000 -m tunnel -r 32 -u 7 -E aes-gcm-16 "0123456789abcdefsalt";`,
			&pfkey.Message{Type: pfkey.ADD, SAType: pfkey.SATypeESP, Src: src, Dst: dst,
				SA:     &pfkey.SA{SPI: 0x1000, Replay: 32, State: pfkey.StateMature, Enc: alg.AESGCM16},
				SA2:    &pfkey.SA2{Mode: pfkey.ModeTunnel, Reqid: 7},
				Replay: packets(256), EncKey: gcmKey}},
		{`add 192.0.2.1[4500] 192.0.2.2[4501] esp-udp 0x1000 -r 256 -E aes-cbc "0123456789abcdef"` +
			` -A hmac-sha2-256 "0123456789abcdef0123456789abcdef";`,
			&pfkey.Message{Type: pfkey.ADD, SAType: pfkey.SATypeESP, Src: src, Dst: dst,
				SA:      &pfkey.SA{SPI: 0x1000, Replay: 255, State: pfkey.StateMature, Enc: alg.AESCBC, Auth: alg.HMACSHA2_256},
				SA2:     &pfkey.SA2{},
				Replay:  packets(2048),
				EncKey:  &pfkey.Key{Bits: 128, Data: []byte("0123456789abcdef")},
				AuthKey: &pfkey.Key{Bits: 256, Data: []byte("0123456789abcdef0123456789abcdef")},
				NATT:    &pfkey.NATT{Type: 2, SrcPort: 4500, DstPort: 4501}}},
		{`add 2001:db8::1 2001:db8::2 esp 256 -m tunnel -natt 10.0.0.1[1] 10.0.0.2[2] -E aes-gcm-16 "0123456789abcdefsalt";`,
			&pfkey.Message{Type: pfkey.ADD, SAType: pfkey.SATypeESP,
				Src: address("2001:db8::1", 255, 128, 0), Dst: address("2001:db8::2", 255, 128, 0),
				SA:  &pfkey.SA{SPI: 256, State: pfkey.StateMature, Enc: alg.AESGCM16},
				SA2: &pfkey.SA2{Mode: pfkey.ModeTunnel}, Replay: packets(0), EncKey: gcmKey,
				NATT: &pfkey.NATT{Type: 2, SrcPort: 1, DstPort: 2},
				OAI:  address("10.0.0.1", 255, 32, 0), OAR: address("10.0.0.2", 255, 32, 0)}},
		{`add 192.0.2.1 192.0.2.2 esp 0x1000 -m transport -f zero-pad -esn -E null -A hmac-sha1 "01234567890123456789";`,
			&pfkey.Message{Type: pfkey.ADD, SAType: pfkey.SATypeESP, Src: src, Dst: dst,
				SA: &pfkey.SA{SPI: 0x1000, State: pfkey.StateMature, Enc: alg.NullEnc, Auth: alg.HMACSHA1,
					Flags: pfkey.FlagESN | pfkey.FlagPadZero},
				SA2: &pfkey.SA2{Mode: pfkey.ModeTransport}, Replay: packets(0),
				EncKey:  &pfkey.Key{Data: []byte{}},
				AuthKey: &pfkey.Key{Bits: 160, Data: []byte("01234567890123456789")}}},
		{`update 192.0.2.1 192.0.2.2 esp 0x1000 -f random-pad -E aes-gcm-16 "0123456789abcdefsalt";`,
			&pfkey.Message{Type: pfkey.UPDATE, SAType: pfkey.SATypeESP, Src: src, Dst: dst,
				SA:  &pfkey.SA{SPI: 0x1000, State: pfkey.StateMature, Enc: alg.AESGCM16, Flags: pfkey.FlagPadRandom},
				SA2: &pfkey.SA2{}, Replay: packets(0), EncKey: gcmKey}},
		{"update 192.0.2.1[4500] 192.0.2.2[61001] esp-udp 0x1000;",
			&pfkey.Message{Type: pfkey.UPDATE, SAType: pfkey.SATypeESP, Src: src, Dst: dst,
				SA:  &pfkey.SA{SPI: 0x1000, State: pfkey.StateMature},
				SA2: &pfkey.SA2{}, Replay: packets(0),
				NATT: &pfkey.NATT{Type: 2, SrcPort: 4500, DstPort: 61001}}},
		{"get 192.0.2.1 192.0.2.2 esp 256;", &pfkey.Message{Type: pfkey.GET, SAType: pfkey.SATypeESP,
			Src: src, Dst: dst, SA: &pfkey.SA{SPI: 256, State: pfkey.StateMature}}},
		{"delete 192.0.2.1 192.0.2.2 esp-udp 256;", &pfkey.Message{Type: pfkey.DELETE, SAType: pfkey.SATypeESP,
			Src: src, Dst: dst, SA: &pfkey.SA{SPI: 256, State: pfkey.StateMature}}},
		{"deleteall 192.0.2.1 192.0.2.2 esp;", &pfkey.Message{Type: pfkey.DELETE, SAType: pfkey.SATypeESP, Src: src, Dst: dst}},
		{"flush;", &pfkey.Message{Type: pfkey.FLUSH}},
		{"flush esp;", &pfkey.Message{Type: pfkey.FLUSH, SAType: pfkey.SATypeESP}},
		{"dump;", &pfkey.Message{Type: pfkey.DUMP}},
		{"spdflush;", &pfkey.Message{Type: pfkey.SPDFLUSH}},
		{"spddump;", &pfkey.Message{Type: pfkey.SPDDUMP}},
		{"spdadd 10.1.0.0/24[22] 10.2.0.0/16 tcp -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:7;",
			&pfkey.Message{Type: pfkey.SPDADD, Src: address("10.1.0.0", 6, 24, 22), Dst: address("10.2.0.0", 6, 16, 0),
				Policy: &pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut, Requests: []pfkey.Request{{
					Proto: 50, Mode: pfkey.ModeTunnel, Level: pfkey.LevelUnique, Reqid: 7,
					Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2")}}}}},
		{"spdupdate 192.0.2.1 192.0.2.2 any -P in ipsec esp/transport//require;",
			&pfkey.Message{Type: pfkey.SPDUPDATE, Src: src, Dst: dst,
				Policy: &pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirIn, Requests: []pfkey.Request{{
					Proto: 50, Mode: pfkey.ModeTransport, Level: pfkey.LevelRequire}}}}},
		{"spdadd 192.0.2.1 192.0.2.2 any -P in ipsec esp/transport/192.0.2.1-192.0.2.2;",
			&pfkey.Message{Type: pfkey.SPDADD, Src: src, Dst: dst,
				Policy: &pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirIn, Requests: []pfkey.Request{{
					Proto: 50, Mode: pfkey.ModeTransport, Src: src.Addr, Dst: dst.Addr}}}}},
		{"spdadd ::/0 ::/0 icmp6 135,1 -P in none;",
			&pfkey.Message{Type: pfkey.SPDADD, Src: address("::", 58, 0, 135), Dst: address("::", 58, 0, 1),
				Policy: &pfkey.Policy{Type: pfkey.PolicyNone, Dir: pfkey.DirIn}}},
		{"spddelete 10.1.0.0/24 10.2.0.0/16 any -P out;",
			&pfkey.Message{Type: pfkey.SPDDELETE, Src: address("10.1.0.0", 255, 24, 0), Dst: address("10.2.0.0", 255, 16, 0),
				Policy: &pfkey.Policy{Dir: pfkey.DirOut}}},
	} {
		stmts, err := config.Parse("f", []byte(tt.src))
		if err != nil {
			t.Fatal(err)
		}
		got, err := Message(stmts[0])
		if err != nil {
			t.Errorf("%s: %v", tt.src, err)
			continue
		}
		if !cmp.Equal(tt.want, got, equal) {
			t.Errorf("%s\n%s", tt.src, cmp.Diff(tt.want, got, equal))
		}
		checkWire(t, got)
	}
}

// checkWire expects that the message passes the codec unchanged.
func checkWire(t *testing.T, m *pfkey.Message) {
	t.Helper()
	b, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	back, err := pfkey.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if !cmp.Equal(m, back, equal) {
		t.Errorf("changed by the codec: %s", cmp.Diff(m, back, equal))
	}
}

type statement struct{ config.SPDDump }

func TestMessageOfForeignStatement(t *testing.T) {
	for _, s := range []config.Statement{
		nil,
		statement{},
		config.Flush{Proto: 9},
		config.Add{Mode: 9},
		config.Update{Add: config.Add{Pad: 9}},
		config.SPDAdd{Rules: []config.Rule{{Proto: config.ProtoESPUDP}}},
		config.SPDAdd{Rules: []config.Rule{{Proto: config.ProtoESP, Mode: 9}}},
	} {
		if _, err := Message(s); err == nil {
			t.Errorf("%+v was accepted", s)
		}
	}
}
