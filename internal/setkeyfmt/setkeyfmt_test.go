package setkeyfmt

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ipsecd/config"
	"ipsecd/crypto/alg"
	"ipsecd/pfkey"
)

var now = time.Date(2025, 11, 22, 4, 20, 0, 0, time.UTC)

func ago(seconds int64) uint64 { return uint64(now.Unix() - seconds) }

func address(s string, proto, bits uint8, port uint16) *pfkey.Address {
	return &pfkey.Address{Proto: proto, PrefixLen: bits, Addr: netip.MustParseAddr(s), Port: port}
}

func key(s string) *pfkey.Key { return &pfkey.Key{Bits: uint16(8 * len(s)), Data: []byte(s)} }

func packets(n uint32) *uint32 { return &n }

func TestAppendSA(t *testing.T) {
	for _, tt := range []struct {
		name string
		m    *pfkey.Message
		want string
	}{
		{"never used", &pfkey.Message{
			SAType: pfkey.SATypeESP, Seq: 1, PID: 812, Reserved: 1,
			Src: address("192.0.2.1", 255, 32, 0), Dst: address("192.0.2.2", 255, 32, 0),
			SA:     &pfkey.SA{SPI: 4096, State: pfkey.StateMature, Enc: alg.AESCBC, Auth: alg.HMACSHA2_256, Flags: pfkey.FlagCycSeq},
			SA2:    &pfkey.SA2{Mode: pfkey.ModeTunnel},
			EncKey: key("1234567890123456"), AuthKey: key("12345678901234567890123456789012"),
			Current: &pfkey.Lifetime{AddTime: ago(60)},
		}, "" +
			"192.0.2.1 192.0.2.2\n" +
			"\tesp mode=tunnel spi=4096(0x00001000) reqid=0(0x00000000)\n" +
			"\tE: aes-cbc  31323334 35363738 39303132 33343536\n" +
			"\tA: hmac-sha2-256  31323334 35363738 39303132 33343536 37383930 31323334 35363738 39303132\n" +
			"\tseq=0x00000000 replay=0 flags=0x00000040 state=mature \n" +
			"\tcreated: Nov 22 04:19:00 2025\tcurrent: Nov 22 04:20:00 2025\n" +
			"\tdiff: 60(s)\thard: 0(s)\tsoft: 0(s)\n" +
			"\tlast:                     \thard: 0(s)\tsoft: 0(s)\n" +
			"\tcurrent: 0(bytes)\thard: 0(bytes)\tsoft: 0(bytes)\n" +
			"\tallocated: 0\thard: 0\tsoft: 0\n" +
			"\tsadb_seq=1 pid=812 refcnt=1\n"},
		{"long key, window and NAT-T", &pfkey.Message{
			SAType: pfkey.SATypeESP,
			Src:    address("2001:db8::1", 255, 128, 0), Dst: address("2001:db8::2", 255, 128, 0),
			SA:     &pfkey.SA{SPI: 0xffffffff, Replay: 255, State: 2, Enc: alg.AESGCM16},
			SA2:    &pfkey.SA2{Sequence: 0xabc, Reqid: 100},
			Replay: packets(4096 * 8), EncKey: key("123456789012345678901234567890123456"),
			NATT: &pfkey.NATT{Type: 2, SrcPort: 4500, DstPort: 61001},
			OAI:  address("10.0.0.1", 255, 32, 0), OAR: address("10.0.0.2", 255, 32, 0),
			Current: &pfkey.Lifetime{Allocations: 3, Bytes: 1 << 40, AddTime: ago(0), UseTime: uint64(time.Date(2025, 11, 2, 23, 59, 59, 0, time.UTC).Unix())},
			Hard:    &pfkey.Lifetime{Allocations: 9, Bytes: 8, AddTime: 7, UseTime: 6},
			Soft:    &pfkey.Lifetime{Allocations: 5, Bytes: 4, AddTime: 3, UseTime: 2},
		}, "" +
			"2001:db8::1[4500] 2001:db8::2[61001]\n" +
			"\tesp-udp mode=any spi=4294967295(0xffffffff) reqid=100(0x00000064)\n" +
			"\tNAT: OAI=10.0.0.1 OAR=10.0.0.2\n" +
			"\tE: aes-gcm-16  31323334 35363738 39303132 33343536 37383930 31323334 35363738 39303132\n" +
			" 33343536\n" +
			"\tseq=0x00000abc replay=4096 flags=0x00000000 state=dying \n" +
			"\tcreated: Nov 22 04:20:00 2025\tcurrent: Nov 22 04:20:00 2025\n" +
			"\tdiff: 0(s)\thard: 7(s)\tsoft: 3(s)\n" +
			"\tlast: Nov  2 23:59:59 2025\thard: 6(s)\tsoft: 2(s)\n" +
			"\tcurrent: 1099511627776(bytes)\thard: 8(bytes)\tsoft: 4(bytes)\n" +
			"\tallocated: 3\thard: 9\tsoft: 5\n" +
			"\tsadb_seq=0 pid=0 refcnt=0\n"},
		{"null in transport mode, with flags", &pfkey.Message{
			SAType: pfkey.SATypeESP,
			Src:    address("192.0.2.1", 255, 32, 0), Dst: address("192.0.2.2", 255, 32, 0),
			SA: &pfkey.SA{SPI: 256, State: pfkey.StateMature, Enc: alg.NullEnc, Auth: alg.HMACSHA1,
				Flags: pfkey.FlagESN | pfkey.FlagPadZero},
			SA2: &pfkey.SA2{Mode: pfkey.ModeTransport}, EncKey: key(""), AuthKey: key("12345678901234567890"),
		}, "" +
			"192.0.2.1 192.0.2.2\n" +
			"\tesp mode=transport spi=256(0x00000100) reqid=0(0x00000000)\n" +
			"\tE: null \n" +
			"\tA: hmac-sha1  31323334 35363738 39303132 33343536 37383930\n" +
			"\tseq=0x00000000 replay=0 flags=0x00000600 state=mature \n" +
			"\tsadb_seq=0 pid=0 refcnt=0\n"},
		{"null with a key, and an algorithm without one", &pfkey.Message{
			Src: address("192.0.2.1", 255, 32, 0), Dst: address("192.0.2.2", 255, 32, 0), SAType: pfkey.SATypeESP,
			SA: &pfkey.SA{SPI: 256, Enc: alg.NullEnc, Auth: alg.HMACSHA2_512}, EncKey: key("12"),
		}, "" +
			"192.0.2.1 192.0.2.2\n" +
			"\tesp mode=any spi=256(0x00000100) reqid=0(0x00000000)\n" +
			"\tE: null  3132\n" +
			"\tA: hmac-sha2-512 \n" +
			"\tseq=0x00000000 replay=0 flags=0x00000000 state=larval \n" +
			"\tsadb_seq=0 pid=0 refcnt=0\n"},
		{"unknown numbers", &pfkey.Message{
			SAType: 77, Src: address("192.0.2.1", 255, 32, 0), Dst: address("192.0.2.2", 255, 32, 0),
			SA:  &pfkey.SA{SPI: 256, Replay: 4, State: 9, Enc: 99},
			SA2: &pfkey.SA2{Mode: 7}, EncKey: key(""),
		}, "" +
			"192.0.2.1 192.0.2.2\n" +
			"\t77 mode=7 spi=256(0x00000100) reqid=0(0x00000000)\n" +
			"\tE: 99 \n" +
			"\tseq=0x00000000 replay=4 flags=0x00000000 state=9 \n" +
			"\tsadb_seq=0 pid=0 refcnt=0\n"},
		{"bare header", &pfkey.Message{SAType: pfkey.SATypeAH}, "" +
			" \n" +
			"\tah mode=any spi=0(0x00000000) reqid=0(0x00000000)\n" +
			"\tseq=0x00000000 replay=0 flags=0x00000000 state=larval \n" +
			"\tsadb_seq=0 pid=0 refcnt=0\n"},
	} {
		if d := cmp.Diff(tt.want, string(AppendSA(nil, tt.m, now))); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

func TestTimesAreInTheZoneOfNow(t *testing.T) {
	m := &pfkey.Message{Current: &pfkey.Lifetime{AddTime: ago(60)}}
	got := string(AppendPolicy(nil, m, now.In(time.FixedZone("", 3600))))
	const want = "\tcreated: Nov 22 05:19:00 2025  lastused:                     \n"
	if !strings.Contains(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestAppendPolicy(t *testing.T) {
	tunnel := pfkey.Request{Proto: 50, Mode: pfkey.ModeTunnel, Level: pfkey.LevelRequire,
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2")}
	unique := func(id uint32) pfkey.Request {
		r := tunnel
		r.Level, r.Reqid = pfkey.LevelUnique, id
		return r
	}
	for _, tt := range []struct {
		name string
		m    *pfkey.Message
		want string
	}{
		{"networks", &pfkey.Message{
			Src: address("10.1.0.0", 255, 24, 0), Dst: address("10.2.0.0", 255, 24, 0), Seq: 1, PID: 812, Reserved: 1,
			Policy:  &pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut, ID: 5, Requests: []pfkey.Request{tunnel}},
			Current: &pfkey.Lifetime{AddTime: ago(60), UseTime: ago(1)},
		}, "" +
			"10.1.0.0/24[any] 10.2.0.0/24[any] any\n" +
			"\tout ipsec\n" +
			"\tesp/tunnel/192.0.2.1-192.0.2.2/require\n" +
			"\tcreated: Nov 22 04:19:00 2025  lastused: Nov 22 04:19:59 2025\n" +
			"\tspid=5 seq=1 pid=812 scope=global \n" +
			"\trefcnt=1\n"},
		{"hosts, ports and ids", &pfkey.Message{
			Src: address("10.1.0.1", 6, 32, 22), Dst: address("10.2.0.1", 6, 32, 0),
			Policy: &pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirIn, Requests: []pfkey.Request{
				unique(0), unique(16383), unique(16384), {Proto: 50, Mode: pfkey.ModeTransport, Level: pfkey.LevelRequire},
				{Proto: 50, Mode: pfkey.ModeTransport, Level: pfkey.LevelUnique, Reqid: 7, Src: tunnel.Src, Dst: tunnel.Dst}, {Proto: 51, Mode: pfkey.ModeTransport}, {Proto: 108, Level: 1}, {Proto: 9}}},
			Hard: &pfkey.Lifetime{AddTime: 10, UseTime: 20},
		}, "" +
			"10.1.0.1[22] 10.2.0.1[any] tcp\n" +
			"\tin ipsec\n" +
			"\tesp/tunnel/192.0.2.1-192.0.2.2/unique\n" +
			"\tesp/tunnel/192.0.2.1-192.0.2.2/unique:16383\n" +
			"\tesp/tunnel/192.0.2.1-192.0.2.2/unique#16384\n" +
			"\tesp/transport//require\n" +
			"\tesp/transport/192.0.2.1-192.0.2.2/unique:7\n" +
			"\tah/transport//default\n" +
			"\tipcomp/any//use\n" +
			"\t9/any//default\n" +
			"\tlifetime: 10(s) validtime: 20(s)\n" +
			"\tspid=0 seq=0 pid=0 scope=global \n" +
			"\trefcnt=0\n"},
		{"icmp6", &pfkey.Message{
			Src: address("::", 58, 0, 135), Dst: address("2001:db8::1", 58, 128, 0),
			Policy: &pfkey.Policy{Type: pfkey.PolicyNone, Dir: pfkey.DirIn},
		}, "" +
			"::/0 2001:db8::1 icmp6 135,0\n" +
			"\tin none\n" +
			"\tspid=0 seq=0 pid=0 scope=global \n" +
			"\trefcnt=0\n"},
		{"any icmp6", &pfkey.Message{
			Src: address("::", 58, 0, 0), Dst: address("::", 58, 0, 0), Policy: &pfkey.Policy{Dir: pfkey.DirOut},
		}, "" +
			"::/0 ::/0 icmp6\n" +
			"\tout discard\n" +
			"\tspid=0 seq=0 pid=0 scope=global \n" +
			"\trefcnt=0\n"},
		{"protocols by number", &pfkey.Message{
			Src: address("0.0.0.0", 4, 0, 0), Dst: address("0.0.0.0", 4, 0, 0), Policy: &pfkey.Policy{Dir: 7, Type: 9},
		}, "" +
			"0.0.0.0/0[any] 0.0.0.0/0[any] ip4\n" +
			"\t7 9\n" +
			"\tspid=0 seq=0 pid=0 scope=global \n" +
			"\trefcnt=0\n"},
	} {
		if d := cmp.Diff(tt.want, string(AppendPolicy(nil, tt.m, now))); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

// TestSelectorsReadBack gives the selectors that are printed to the parser.
// Those of ICMP with a type are not among them: they are printed as ports.
func TestSelectorsReadBack(t *testing.T) {
	for _, tt := range []struct {
		src, dst     string
		upper        uint8
		sport, dport uint16
	}{
		{"10.1.0.0/24", "10.2.0.1/32", config.UpperAny, 0, 0},
		{"10.1.0.0/24", "10.2.0.1/32", config.UpperAny, 22, 0},
		{"10.1.0.1/32", "10.2.0.0/16", 6, 22, 65535},
		{"0.0.0.0/0", "10.2.0.0/16", 17, 0, 53},
		{"10.1.0.1/32", "10.2.0.1/32", 1, 0, 0},
		{"10.1.0.1/32", "10.2.0.1/32", 4, 0, 0},
		{"10.1.0.1/32", "10.2.0.1/32", 47, 0, 0},
		{"10.1.0.1/32", "10.2.0.1/32", 50, 0, 0},
		{"10.1.0.1/32", "10.2.0.1/32", 99, 0, 0},
		{"fd00::/64", "::/0", config.UpperAny, 0, 0},
		{"fd00::/64", "2001:db8::1/128", 132, 1, 2},
		{"fd00::/64", "2001:db8::1/128", 41, 0, 0},
		{"::/0", "2001:db8::1/128", 58, 0, 0},
		{"::/0", "2001:db8::1/128", 58, 135, 0},
		{"::/0", "2001:db8::1/128", 58, 3, 4},
	} {
		want := config.Selector{Src: netip.MustParsePrefix(tt.src), Dst: netip.MustParsePrefix(tt.dst),
			SrcPort: tt.sport, DstPort: tt.dport, Upper: tt.upper}
		m := &pfkey.Message{
			Src:    address(want.Src.Addr().String(), tt.upper, uint8(want.Src.Bits()), tt.sport),
			Dst:    address(want.Dst.Addr().String(), tt.upper, uint8(want.Dst.Bits()), tt.dport),
			Policy: &pfkey.Policy{Type: pfkey.PolicyNone, Dir: pfkey.DirOut},
		}
		selector, _, _ := strings.Cut(string(AppendPolicy(nil, m, now)), "\n")
		stmts, err := config.Parse("dump", []byte("spdadd "+selector+" -P out none;"))
		if err != nil || len(stmts) != 1 {
			t.Errorf("%s: %v", selector, err)
			continue
		}
		if got := stmts[0].(config.SPDAdd).Sel; got != want {
			t.Errorf("%s reads %+v, want %+v", selector, got, want)
		}
	}
}

// TestClockBeforeCreation has a clock that was set back since the SA came.
func TestClockBeforeCreation(t *testing.T) {
	m := &pfkey.Message{Current: &pfkey.Lifetime{AddTime: ago(-60)}}
	got := string(AppendSA(nil, m, now))
	if !strings.Contains(got, "\tcreated: Nov 22 04:21:00 2025\t") || !strings.Contains(got, "\tdiff: 0(s)\t") {
		t.Errorf("got %s", got)
	}
}
