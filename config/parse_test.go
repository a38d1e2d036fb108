package config

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"ipsecd/crypto/alg"
)

// Keys of the tests: 20 octets for GCM, 16 and 32 for CBC with HMAC.
const (
	gcmKey  = "0x000102030405060708090a0b0c0d0e0f10111213"
	cbcKey  = "0x000102030405060708090a0b0c0d0e0f"
	hmacKey = "0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
)

func octets(n int) Key {
	k := make(Key, n)
	for i := range k {
		k[i] = byte(i)
	}
	return k
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func at(line, col int) Pos { return Pos{"f", line, col} }

var equal = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func said(proto Proto, src, dst string, spi uint32) SAID {
	return SAID{at(1, 1), proto, addr(src), addr(dst), spi}
}

func gcm(proto Proto) Add {
	return Add{SAID: said(proto, "192.0.2.1", "192.0.2.2", 0x1000), Enc: alg.AESGCM16, EncKey: octets(20)}
}

func with(a Add, change func(*Add)) Add {
	change(&a)
	return a
}

// cbc is AES-CBC with an authentication key of n times A.
func cbc(auth uint8, n int) Add {
	return with(gcm(ProtoESP), func(a *Add) {
		a.Enc, a.EncKey, a.Auth, a.AuthKey = alg.AESCBC, octets(16), auth, Key(strings.Repeat("A", n))
	})
}

// null is the cipher null with HMAC-SHA-1.
func null(key Key) Add {
	return with(cbc(alg.HMACSHA1, 20), func(a *Add) { a.Enc, a.EncKey = alg.NullEnc, key })
}

// addr0 is no address.
var addr0 netip.Addr

// transport is an spdadd with a rule in transport mode.
func transport(src, dst netip.Addr, level Level, reqid uint32) SPDAdd {
	return SPDAdd{at(1, 1), sel("10.1.0.0/24", "10.2.0.0/24", 0, 0, UpperAny), Out, IPsec,
		[]Rule{{ProtoESP, ModeTransport, src, dst, level, reqid}}}
}

func require(src, dst string) []Rule {
	return []Rule{{Proto: ProtoESP, Mode: ModeTunnel, Src: addr(src), Dst: addr(dst), Level: LevelRequire}}
}

func sel(src, dst string, sport, dport uint16, upper uint8) Selector {
	return Selector{prefix(src), prefix(dst), sport, dport, upper}
}

func TestParse(t *testing.T) {
	const pair = "192.0.2.1 192.0.2.2"
	lans := sel("10.1.0.0/24", "10.2.0.0/24", 0, 0, UpperAny)
	for _, tt := range []struct {
		src  string
		want Statement
	}{
		{"add " + pair + " esp 4096 -E aes-gcm-16 " + gcmKey + ";", gcm(ProtoESP)},
		{"add " + pair + " esp 0X1000 -E aes-gcm-16 0X" + gcmKey[2:] + ";", gcm(ProtoESP)},
		{"add -4n " + pair + " esp 0x1000 -m any -f seq-pad -f nocyclic-seq -E aes-gcm-16 " + gcmKey + ";", gcm(ProtoESP)},
		{"add\t" + pair + "\r\nesp # comment; \"\n0x1000 -E aes-gcm-16 " + gcmKey + "\r\n;", gcm(ProtoESP)},
		{"add " + pair + " esp 0x1000 -m tunnel -r 32 -u 100 -E aes-gcm-16 " + gcmKey + ";",
			with(gcm(ProtoESP), func(a *Add) { a.Mode, a.Replay, a.Reqid = ModeTunnel, 32, 100 })},
		{"add " + pair + " esp 0x1000 -r 32768 -u 16383 -E aes-gcm-16 " + gcmKey + ";",
			with(gcm(ProtoESP), func(a *Add) { a.Replay, a.Reqid = 32768, 16383 })},
		{"add " + pair + " esp-udp 0x1000 -E aes-gcm-16 " + gcmKey + ";",
			with(gcm(ProtoESPUDP), func(a *Add) { a.NATT = &NATT{SrcPort: 4500, DstPort: 4500} })},
		{"add 192.0.2.1[4500] 192.0.2.2 [61001] esp-udp 0x1000 -E aes-gcm-16 " + gcmKey + ";",
			with(gcm(ProtoESPUDP), func(a *Add) { a.NATT = &NATT{SrcPort: 4500, DstPort: 61001} })},
		{"add " + pair + " esp 0x1000 -natt 10.0.0.1[4500] 10.0.0.2[4501] -m tunnel -E aes-gcm-16 " + gcmKey + ";",
			with(gcm(ProtoESP), func(a *Add) {
				a.Mode, a.NATT = ModeTunnel, &NATT{4500, 4501, addr("10.0.0.1"), addr("10.0.0.2")}
			})},
		{`add ` + pair + ` esp 0x1000 -E rijndael-cbc "sixteen; #octets" -A hmac-sha256 ` + hmacKey + `;`,
			with(gcm(ProtoESP), func(a *Add) {
				a.Enc, a.EncKey, a.Auth, a.AuthKey = alg.AESCBC, Key("sixteen; #octets"), alg.HMACSHA2_256, octets(32)
			})},
		{"add " + pair + " esp 0x1000 -m transport -f zero-pad -esn -E aes-gcm-16 " + gcmKey + ";",
			with(gcm(ProtoESP), func(a *Add) { a.Mode, a.Pad, a.ESN = ModeTransport, PadZero, true })},
		{"add " + pair + " esp 0x1000 -f zero-pad -f nocyclic-seq -f random-pad -E aes-gcm-16 " + gcmKey + ";",
			with(gcm(ProtoESP), func(a *Add) { a.Pad = PadRandom })},
		{"add " + pair + " esp 0x1000 -f zero-pad -f seq-pad -E aes-gcm-16 " + gcmKey + ";", gcm(ProtoESP)},
		{"add " + pair + " esp 0x1000 -E null -A hmac-sha1 0x" + strings.Repeat("41", 20) + ";", null(nil)},
		{"add " + pair + ` esp 0x1000 -E null "" -A hmac-sha1 "` + strings.Repeat("A", 20) + `";`, null(nil)},
		{"add " + pair + ` esp 0x1000 -E simple 0x4243 -A hmac-sha1 "` + strings.Repeat("A", 20) + `";`, null(Key("BC"))},
		{"add " + pair + " esp 0x1000 -E aes-cbc " + cbcKey + ` -A hmac-sha384 "` + strings.Repeat("A", 48) + `";`,
			cbc(alg.HMACSHA2_384, 48)},
		{"add " + pair + " esp 0x1000 -E aes-cbc " + cbcKey + ` -A hmac-sha2-512 "` + strings.Repeat("A", 64) + `";`,
			cbc(alg.HMACSHA2_512, 64)},
		{"add -46n 2001:DB8::1 2001:db8::2 esp 256 -E aes-gcm-16 " + gcmKey + ";",
			Add{SAID: said(ProtoESP, "2001:db8::1", "2001:db8::2", 256), Enc: alg.AESGCM16, EncKey: octets(20)}},

		{"update " + pair + " esp 0x1000 -m tunnel -r 4 -E aes-gcm-16 " + gcmKey + ";",
			Update{with(gcm(ProtoESP), func(a *Add) { a.Mode, a.Replay = ModeTunnel, 4 })}},
		{"update 192.0.2.1[4500] 192.0.2.2[61001] esp-udp 0x1000;", Update{Add{
			SAID: said(ProtoESPUDP, "192.0.2.1", "192.0.2.2", 0x1000), NATT: &NATT{SrcPort: 4500, DstPort: 61001}}}},
		{"update " + pair + " esp 0x1000 -natt 10.0.0.1[4500] 10.0.0.2[4501];", Update{Add{
			SAID: said(ProtoESP, "192.0.2.1", "192.0.2.2", 0x1000), NATT: &NATT{4500, 4501, addr("10.0.0.1"), addr("10.0.0.2")}}}},

		{"get " + pair + " esp 0xffffffff;", Get{said(ProtoESP, "192.0.2.1", "192.0.2.2", 0xffffffff)}},
		{"delete 192.0.2.1[4500] 192.0.2.2[4500] esp-udp 0x100;", Delete{said(ProtoESPUDP, "192.0.2.1", "192.0.2.2", 0x100)}},
		{"deleteall " + pair + " esp;", DeleteAll{said(ProtoESP, "192.0.2.1", "192.0.2.2", 0)}},
		{"flush;", Flush{at(1, 1), ProtoAny}},
		{"flush esp;", Flush{at(1, 1), ProtoESP}},
		{"dump esp-udp ;", Dump{at(1, 1), ProtoESPUDP}},
		{"flush# all of them\n;", Flush{at(1, 1), ProtoAny}},
		{"get " + pair + " esp 256# the old one;\n;", Get{said(ProtoESP, "192.0.2.1", "192.0.2.2", 256)}},
		{"spdflush;", SPDFlush{at(1, 1)}},
		{"spddump;", SPDDump{at(1, 1)}},
		{"#!/usr/sbin/setkey -f\n  spddump;", SPDDump{at(2, 3)}},

		{"spdadd 10.1.0.7/24 10.2.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;",
			SPDAdd{at(1, 1), lans, Out, IPsec, require("192.0.2.1", "192.0.2.2")}},
		{"spdadd 10.1.0.0/24[any] 10.2.0.0/24[0] 255 -P out ipsec\nesp / tunnel / 192.0.2.1 - 192.0.2.2 # the gateways\n/ require ;",
			SPDAdd{at(1, 1), lans, Out, IPsec, require("192.0.2.1", "192.0.2.2")}},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P in ipsec esp/tunnel/192.0.2.2-192.0.2.1;",
			SPDAdd{at(1, 1), lans, In, IPsec, []Rule{{ProtoESP, ModeTunnel, addr("192.0.2.2"), addr("192.0.2.1"), LevelDefault, 0}}}},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P in ipsec esp/tunnel/192.0.2.2-192.0.2.1/;",
			SPDAdd{at(1, 1), lans, In, IPsec, []Rule{{ProtoESP, ModeTunnel, addr("192.0.2.2"), addr("192.0.2.1"), LevelDefault, 0}}}},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P in ipsec esp/tunnel/192.0.2.2-192.0.2.1/unique:16383;",
			SPDAdd{at(1, 1), lans, In, IPsec, []Rule{{ProtoESP, ModeTunnel, addr("192.0.2.2"), addr("192.0.2.1"), LevelUnique, 16383}}}},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P in ipsec esp/tunnel/192.0.2.2-192.0.2.1/unique;",
			SPDAdd{at(1, 1), lans, In, IPsec, []Rule{{ProtoESP, ModeTunnel, addr("192.0.2.2"), addr("192.0.2.1"), LevelUnique, 0}}}},
		{"spdadd fd00::/64 ::/0 any -P out ipsec esp/tunnel/2001:db8::1-2001:db8::2/require;",
			SPDAdd{at(1, 1), sel("fd00::/64", "::/0", 0, 0, UpperAny), Out, IPsec, require("2001:db8::1", "2001:db8::2")}},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp/tunnel/2001:db8::1-2001:db8::2/require;",
			SPDAdd{at(1, 1), lans, Out, IPsec, require("2001:db8::1", "2001:db8::2")}},
		{"spdadd fd00::/64 ::/0 any -P in ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;",
			SPDAdd{at(1, 1), sel("fd00::/64", "::/0", 0, 0, UpperAny), In, IPsec, require("192.0.2.1", "192.0.2.2")}},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp/transport//require;", transport(addr0, addr0, LevelRequire, 0)},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp / transport / # none\n / unique:7;", transport(addr0, addr0, LevelUnique, 7)},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp/transport//unique :5;", transport(addr0, addr0, LevelUnique, 5)},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp/transport//unique: 5;", transport(addr0, addr0, LevelUnique, 5)},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp/transport//unique : 0x5;", transport(addr0, addr0, LevelUnique, 5)},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp/transport//unique ;", transport(addr0, addr0, LevelUnique, 0)},
		{"spdadd 224.0.0.0/3 10.2.0.0/24 any -P out ipsec esp/transport//require;",
			SPDAdd{at(1, 1), sel("224.0.0.0/3", "10.2.0.0/24", 0, 0, UpperAny), Out, IPsec, []Rule{{ProtoESP, ModeTransport, addr0, addr0, LevelRequire, 0}}}},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp/transport;", transport(addr0, addr0, LevelDefault, 0)},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp/transport/;", transport(addr0, addr0, LevelDefault, 0)},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp/transport//;", transport(addr0, addr0, LevelDefault, 0)},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp/transport/10.1.0.1-10.2.0.1;",
			transport(addr("10.1.0.1"), addr("10.2.0.1"), LevelDefault, 0)},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp/transport/10.1.0.1-10.2.0.1/require;",
			transport(addr("10.1.0.1"), addr("10.2.0.1"), LevelRequire, 0)},
		{"spdupdate 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;",
			SPDUpdate{SPDAdd{at(1, 1), lans, Out, IPsec, require("192.0.2.1", "192.0.2.2")}}},
		{"spdupdate 10.1.0.0/24 10.2.0.0/24 any -P in none;", SPDUpdate{SPDAdd{at(1, 1), lans, In, None, nil}}},
		{"spdadd 10.0.0.1[ssh] 10.0.0.2/32[65535] tcp -P out none;",
			SPDAdd{at(1, 1), sel("10.0.0.1/32", "10.0.0.2/32", 22, 65535, 6), Out, None, nil}},
		{"spdadd 10.0.0.1[22] 10.0.0.2 any -P out discard;",
			SPDAdd{at(1, 1), sel("10.0.0.1/32", "10.0.0.2/32", 22, 0, UpperAny), Out, Discard, nil}},
		{"spdadd ::/0 ::/0 icmp6 135,0 -P in none;", SPDAdd{at(1, 1), sel("::/0", "::/0", 135, 0, 58), In, None, nil}},
		{"spdadd ::/0 ::/0 58 135 -P in none;", SPDAdd{at(1, 1), sel("::/0", "::/0", 135, 0, 58), In, None, nil}},
		{"spdadd 0.0.0.0/0 0.0.0.0/0 icmp 3,4 -P in none;", SPDAdd{at(1, 1), sel("0.0.0.0/0", "0.0.0.0/0", 3, 4, 1), In, None, nil}},
		{"spdadd 0.0.0.0/0 0.0.0.0/0 ipencap -P in none;", SPDAdd{at(1, 1), sel("0.0.0.0/0", "0.0.0.0/0", 0, 0, 4), In, None, nil}},
		{"spdadd 0.0.0.0/0 0.0.0.0/0 99 -P in none;", SPDAdd{at(1, 1), sel("0.0.0.0/0", "0.0.0.0/0", 0, 0, 99), In, None, nil}},
		{"spdadd 10.0.0.1[any] 10.0.0.2[0] icmp -P in none;", SPDAdd{at(1, 1), sel("10.0.0.1/32", "10.0.0.2/32", 0, 0, 1), In, None, nil}},
		{"spdadd ::/0[any] ::/0[any] icmp6 135,0 -P in none;", SPDAdd{at(1, 1), sel("::/0", "::/0", 135, 0, 58), In, None, nil}},
		{"spdadd 10.0.0.1[any] 10.0.0.2 gre -P in none;", SPDAdd{at(1, 1), sel("10.0.0.1/32", "10.0.0.2/32", 0, 0, 47), In, None, nil}},
		{"spddelete 10.1.0.0/24 10.2.0.0/24 any -P out none;", SPDDelete{at(1, 1), lans, Out}},
		{"spddelete 10.1.0.0/24 10.2.0.0/24 any -P out;", SPDDelete{at(1, 1), lans, Out}},
		{"spddelete 10.1.0.0/24 10.2.0.0/24 any -P in ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;", SPDDelete{at(1, 1), lans, In}},
	} {
		got, err := Parse("f", []byte(tt.src))
		if err != nil {
			t.Errorf("%s\n%v", tt.src, err)
			continue
		}
		if d := cmp.Diff([]Statement{tt.want}, got, equal); d != "" {
			t.Errorf("%s\n%s", tt.src, d)
		}
		checkRoundTrip(t, got)
	}
}

// checkRoundTrip prints statements, reads them again and expects the same but
// for the positions.
func checkRoundTrip(t rapid.TB, stmts []Statement) {
	t.Helper()
	var text []byte
	for _, s := range stmts {
		text = append(Append(text, s), '\n')
	}
	again, err := Parse("again", text)
	if err != nil {
		t.Fatalf("what was printed does not parse: %v\n%s", err, text)
	}
	samePlace := cmp.Comparer(func(a, b Pos) bool { return true })
	if d := cmp.Diff(stmts, again, equal, samePlace); d != "" {
		t.Fatalf("printed as\n%s\nread back with differences:\n%s", text, d)
	}
}

func TestParseEmpty(t *testing.T) {
	for _, src := range []string{"", "\n\n", "# nothing\r\n", "exit", "quit;", "bye; never read", "exit # the end\n"} {
		if got, err := Parse("f", []byte(src)); err != nil || len(got) != 0 {
			t.Errorf("%q: %v, %v", src, got, err)
		}
	}
}

func TestParseFrom(t *testing.T) {
	stmts, exit, err := ParseFrom("f", 7, []byte("flush;\ndump; exit; nonsense"))
	want := []Statement{Flush{at(7, 1), ProtoAny}, Dump{at(8, 1), ProtoAny}}
	if d := cmp.Diff(want, stmts); d != "" || !exit || err != nil {
		t.Errorf("exit %v, error %v, statements %s", exit, err, d)
	}
}

func TestComplete(t *testing.T) {
	for src, want := range map[string]bool{
		"":                    true,
		"# a comment":         true,
		"flush;":              true,
		"flush; # done\n":     true,
		"flush":               false,
		"flush; dump":         false,
		`add "a;`:             false,
		`add "a;";`:           true,
		"flush # not yet; \n": false,
	} {
		if got := Complete([]byte(src)); got != want {
			t.Errorf("%q: %v", src, got)
		}
	}
}

func TestErrorsOfOneText(t *testing.T) {
	src := strings.Join([]string{
		"flush",
		"spdflush;",
		"get 192.0.2.1 192.0.2.2 esp 0;",
		"dump ;;",
		"spdadd 10.0.0.0/33 10.0.0.0/8 any -P out none;",
		"spddump;",
	}, "\n")
	stmts, err := Parse("f", []byte(src))
	want := []Statement{SPDFlush{at(2, 1)}, Dump{at(4, 1), ProtoAny}, SPDDump{at(6, 1)}}
	if d := cmp.Diff(want, stmts); d != "" {
		t.Errorf("statements: %s", d)
	}
	wantErr := strings.Join([]string{
		`f:1:6: the statement does not end before the "spdflush" that follows; put a ; here`,
		`f:3:29: the SPI "0" is not right; an SPI is a number from 0x100 to 0xffffffff`,
		`f:4:7: no statement stands before this semicolon; remove it`,
		`f:5:17: the prefix length "33" is not right; the prefix length of an IPv4 address is 0 to 32`,
	}, "\n")
	if d := cmp.Diff(wantErr, err.Error()); d != "" {
		t.Errorf("errors: %s", d)
	}
}

func TestAtMostTenErrors(t *testing.T) {
	_, err := Parse("f", []byte(strings.Repeat("nonsense;\n", 50)+"flush;"))
	if errs := err.(Errors); len(errs) != 10 || errs[9].Line != 10 {
		t.Errorf("%d errors: %v", len(errs), err)
	}
}

// TestSPDDeleteSwallowsNothing leaves out the `;` behind each form of
// spddelete: the statement that follows still counts.
func TestSPDDeleteSwallowsNothing(t *testing.T) {
	for _, treatment := range []string{"", " none", " ipsec esp/tunnel/192.0.2.1-192.0.2.2", " ipsec esp/tunnel/192.0.2.1-192.0.2.2/require",
		" ipsec esp/transport", " ipsec esp/transport/", " ipsec esp/transport//require"} {
		head := "spddelete 10.0.0.0/8 10.0.0.0/8 any -P out" + treatment
		stmts, err := Parse("f", []byte(head+"\nspdflush;"))
		want := fmt.Sprintf(`f:1:%d: the statement does not end before the "spdflush" that follows; put a ; here`, len(head)+1)
		if err == nil || err.Error() != want {
			t.Errorf("%s\ngot  %v\nwant %s", head, err, want)
		}
		if d := cmp.Diff([]Statement{SPDFlush{at(2, 1)}}, stmts); d != "" {
			t.Errorf("%s\n%s", head, d)
		}
	}
}

func TestKeyHidesOctets(t *testing.T) {
	k := Key("abcdefghijklmnop")
	const hidden = "key of 128 bits, not shown"
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%c", "%U"} {
		if got := fmt.Sprintf(verb, k); got != hidden {
			t.Errorf("%s: %s", verb, got)
		}
		if got := fmt.Sprintf(verb, Add{EncKey: k}); !strings.Contains(got, hidden) {
			t.Errorf("add by %s: %s", verb, got)
		}
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "key", k, "add", Add{EncKey: k})
	if got := log.String(); strings.Count(got, `"`+hidden+`"`) != 2 || strings.Contains(got, "YWJj") {
		t.Error(got)
	}
}

func TestFormatHidesKeys(t *testing.T) {
	const src = `add 192.0.2.1 192.0.2.2 esp 0x1000 -E aes-cbc "abcdefghijklmnop" -A hmac-sha2-256 ` + hmacKey + `;`
	stmts, err := Parse("f", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	const want = "add 192.0.2.1 192.0.2.2 esp 0x1000 -E aes-cbc (key of 128 bits, not shown)" +
		" -A hmac-sha2-256 (key of 256 bits, not shown);"
	if got := Format(stmts[0]); got != want {
		t.Errorf("got %s", got)
	}
}
