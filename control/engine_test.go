package control_test

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"ipsecd/control"
	"ipsecd/crypto/alg"
	"ipsecd/pfkey"
	"ipsecd/sad"
	"ipsecd/spd"
)

func TestErrno(t *testing.T) {
	policyAdd := func(change func(*pfkey.Message)) *pfkey.Message {
		return with(spdadd(pfkey.DirIn, "10.3.0.0/16", "10.4.0.0/16"), change)
	}
	rule := func(change func(*pfkey.Request)) *pfkey.Message {
		return policyAdd(func(m *pfkey.Message) { change(&m.Policy.Requests[0]) })
	}
	upper := func(proto uint8, src, dst uint16) *pfkey.Message {
		return policyAdd(func(m *pfkey.Message) {
			m.Src.Proto, m.Dst.Proto, m.Src.Port, m.Dst.Port = proto, proto, src, dst
		})
	}
	saAdd := func(change func(*pfkey.Message)) *pfkey.Message { return with(add(0x2000, a4, b4), change) }
	satype := func(m *pfkey.Message, n uint8) *pfkey.Message {
		return with(m, func(m *pfkey.Message) { m.SAType = n })
	}
	natt := func(typ uint8, src, dst uint16) *pfkey.Message {
		return saAdd(func(m *pfkey.Message) { m.NATT = &pfkey.NATT{Type: typ, SrcPort: src, DstPort: dst} })
	}
	original := func(mode uint8, src, dst *pfkey.Address) *pfkey.Message {
		return with(natt(pfkey.TypeNATT, nattPort, nattPort), func(m *pfkey.Message) { m.SA2.Mode, m.OAI, m.OAR = mode, src, dst })
	}
	null := func(key *pfkey.Key) *pfkey.Message {
		return saAdd(func(m *pfkey.Message) {
			m.SA.Enc, m.SA.Auth, m.EncKey = alg.NullEnc, alg.HMACSHA1, key
			m.AuthKey = &pfkey.Key{Bits: 160, Data: make([]byte, 20)}
		})
	}
	window := func(packets uint32) *pfkey.Message {
		return saAdd(func(m *pfkey.Message) { m.Replay = &packets })
	}
	tests := []struct {
		name string
		m    *pfkey.Message
		want syscall.Errno
		text string // part of the reply's text; "" where the errno says it all
	}{
		{"add", saAdd(func(*pfkey.Message) {}), 0, ""},
		{"add IPv6", add(0x2000, a6, b6), 0, ""},
		{"add of a used SPI to another host", add(0x1000, a4, netip.MustParseAddr("198.51.100.3")), 0, ""},
		{"add of a taken SPI", add(0x1000, a4, b4), syscall.EEXIST, ""},
		{"add without SA2 is of any mode", saAdd(func(m *pfkey.Message) { m.SA2 = nil }), 0, ""},
		{"add of ah", satype(add(0x2000, a4, b4), pfkey.SATypeAH), syscall.EPROTONOSUPPORT, "only esp"},
		{"add of ipcomp", satype(add(0x2000, a4, b4), pfkey.SATypeIPComp), syscall.EPROTONOSUPPORT, "only esp"},
		{"add of no protocol", satype(add(0x2000, a4, b4), 0), syscall.EINVAL, "names no protocol"},
		{"add without SA", saAdd(func(m *pfkey.Message) { m.SA = nil }), syscall.EINVAL, "SPI is missing"},
		{"add without source", saAdd(func(m *pfkey.Message) { m.Src = nil }), syscall.EINVAL, "source or destination"},
		{"add without destination", saAdd(func(m *pfkey.Message) { m.Dst = nil }), syscall.EINVAL, "source or destination"},
		{"add across families", add(0x2000, a4, b6), syscall.EINVAL, "two address families"},
		{"add of a mapped address", add(0x2000, a6, netip.MustParseAddr("::ffff:10.0.0.1")), syscall.EINVAL, "write 10.0.0.1"},
		{"add to nobody", add(0x2000, a4, netip.IPv4Unspecified()), syscall.EINVAL, "no host"},
		{"add to a group", add(0x2000, a4, netip.MustParseAddr("224.0.0.1")), syscall.EOPNOTSUPP, "multicast address 224.0.0.1"},
		{"add from a group", add(0x2000, netip.MustParseAddr("ff02::5"), b6), syscall.EOPNOTSUPP, "multicast address ff02::5"},
		{"add of a reserved SPI", add(255, a4, b4), syscall.EINVAL, "first free one is 256"},
		{"add of the first SPI", add(256, a4, b4), 0, ""},
		{"add of a dead SA", saAdd(func(m *pfkey.Message) { m.SA.State = 3 }), syscall.EINVAL, "state 3"},
		{"add in transport mode", saAdd(func(m *pfkey.Message) { m.SA2.Mode = pfkey.ModeTransport }), 0, ""},
		{"add in transport mode, in UDP", with(natt(pfkey.TypeNATT, nattPort, 9), func(m *pfkey.Message) { m.SA2.Mode = pfkey.ModeTransport }), 0, ""},
		{"add in transport mode with an original source", original(pfkey.ModeTransport, host(a4), nil), syscall.EOPNOTSUPP, "original addresses"},
		{"add in transport mode with an original destination", original(pfkey.ModeTransport, nil, host(b4)), syscall.EOPNOTSUPP, "original addresses"},
		{"add in any mode with original addresses", original(pfkey.ModeAny, host(a4), host(b4)), syscall.EOPNOTSUPP, "tunnel mode alone"},
		{"add in tunnel mode with original addresses", original(pfkey.ModeTunnel, host(a4), host(b4)), 0, ""},
		{"add of mode any", saAdd(func(m *pfkey.Message) { m.SA2.Mode = pfkey.ModeAny }), 0, ""},
		{"add of an unknown mode", saAdd(func(m *pfkey.Message) { m.SA2.Mode = 9 }), syscall.EINVAL, "mode 9"},
		{"add with ESN", saAdd(func(m *pfkey.Message) { m.SA.Flags |= pfkey.FlagESN }), 0, ""},
		{"add with zero-pad", saAdd(func(m *pfkey.Message) { m.SA.Flags |= pfkey.FlagPadZero }), 0, ""},
		{"add with random-pad", saAdd(func(m *pfkey.Message) { m.SA.Flags |= pfkey.FlagPadRandom }), 0, ""},
		{"add with two paddings", saAdd(func(m *pfkey.Message) { m.SA.Flags |= pfkey.FlagPad }), syscall.EINVAL, "either random or zero"},
		{"add with derived IVs", saAdd(func(m *pfkey.Message) { m.SA.Flags |= 0x20 }), syscall.EOPNOTSUPP, "0x20"},
		{"add of an old transform", saAdd(func(m *pfkey.Message) { m.SA.Flags |= 1 }), syscall.EOPNOTSUPP, "0x1"},
		{"add without flags", saAdd(func(m *pfkey.Message) { m.SA.Flags = 0 }), 0, ""},
		{"add with a hard lifetime", saAdd(func(m *pfkey.Message) { m.Hard = new(pfkey.Lifetime) }), syscall.EOPNOTSUPP, "lifetimes"},
		{"add with a soft lifetime", saAdd(func(m *pfkey.Message) { m.Soft = new(pfkey.Lifetime) }), syscall.EOPNOTSUPP, "lifetimes"},
		{"add with the widest window", window(262144), 0, ""},
		{"add with a window too wide", window(262145), syscall.EINVAL, "-r 32768"},
		{"add without key", saAdd(func(m *pfkey.Message) { m.EncKey = nil }), syscall.EINVAL, "-E"},
		{"add with a key too short", saAdd(func(m *pfkey.Message) { m.EncKey = &pfkey.Key{Bits: 128, Data: make([]byte, 16)} }), syscall.EINVAL, "160"},
		{"add with half octets of key", saAdd(func(m *pfkey.Message) { m.EncKey.Bits = 159 }), syscall.EINVAL, "whole octets"},
		{"add with half octets of authentication key", saAdd(func(m *pfkey.Message) { m.AuthKey = &pfkey.Key{Bits: 7, Data: make([]byte, 1)} }), syscall.EINVAL, "whole octets"},
		{"add of null", null(&pfkey.Key{}), 0, ""},
		{"add of null without key", null(nil), 0, ""},
		{"add of null with a key", null(&pfkey.Key{Bits: 16, Data: make([]byte, 2)}), 0, ""},
		{"add of null with too long a key", null(&pfkey.Key{Bits: 2056, Data: make([]byte, 257)}), syscall.EINVAL, "2048"},
		{"add of null alone", with(null(nil), func(m *pfkey.Message) { m.SA.Auth, m.AuthKey = 0, nil }), syscall.EINVAL, "needs an authentication algorithm"},
		{"add of null twice", with(null(nil), func(m *pfkey.Message) { m.SA.Auth, m.AuthKey = 251, nil }), syscall.EINVAL, "251"},
		{"add of another cipher with a key of no bits", saAdd(func(m *pfkey.Message) { m.EncKey = &pfkey.Key{} }), syscall.EINVAL, "160"},
		{"add with an unknown cipher", saAdd(func(m *pfkey.Message) { m.SA.Enc = 99 }), syscall.EINVAL, "99"},
		{"add in UDP, our port first", natt(pfkey.TypeNATT, nattPort, 10000), 0, ""},
		{"add in UDP, our port second", natt(pfkey.TypeNATT, 10000, nattPort), 0, ""},
		{"add in UDP of another port", natt(pfkey.TypeNATT, 10000, 10001), syscall.EINVAL, "port is 4500, see --natt"},
		{"add in UDP of another type", natt(1, nattPort, nattPort), syscall.EINVAL, "type 1"},

		{"get", named(pfkey.GET, 0x1000, a4, b4), 0, ""},
		{"get of another SPI", named(pfkey.GET, 0x1001, a4, b4), syscall.ENOENT, ""},
		{"get of another source", named(pfkey.GET, 0x1000, b4, b4), syscall.ENOENT, ""},
		{"get without SPI", with(named(pfkey.GET, 0, a4, b4), func(m *pfkey.Message) { m.SA = nil }), syscall.EINVAL, "SPI is missing"},
		{"get of ah", satype(named(pfkey.GET, 0x1000, a4, b4), pfkey.SATypeAH), syscall.EPROTONOSUPPORT, "only esp"},
		{"delete", named(pfkey.DELETE, 0x1000, a4, b4), 0, ""},
		{"delete of another SPI", named(pfkey.DELETE, 0x1001, a4, b4), syscall.ENOENT, ""},
		{"delete of another source", named(pfkey.DELETE, 0x1000, b4, b4), syscall.ENOENT, ""},
		{"delete of nothing between two hosts", with(named(pfkey.DELETE, 0, b4, a4), func(m *pfkey.Message) { m.SA = nil }), 0, ""},
		{"delete without addresses", bare(pfkey.DELETE), syscall.EINVAL, "names no protocol"},
		{"flush", bare(pfkey.FLUSH), 0, ""},
		{"flush of ah", satype(bare(pfkey.FLUSH), pfkey.SATypeAH), 0, ""},
		{"flush of an unknown type", satype(bare(pfkey.FLUSH), 77), syscall.EINVAL, "77"},
		{"dump", bare(pfkey.DUMP), 0, ""},
		{"dump of ah", satype(bare(pfkey.DUMP), pfkey.SATypeAH), syscall.ENOENT, ""},
		{"dump of an unknown type", satype(bare(pfkey.DUMP), 77), syscall.EINVAL, "77"},
		{"register for nothing", bare(pfkey.REGISTER), 0, ""},
		{"register", satype(bare(pfkey.REGISTER), pfkey.SATypeESP), 0, ""},
		{"register for ah", satype(bare(pfkey.REGISTER), pfkey.SATypeAH), syscall.EPROTONOSUPPORT, "only esp"},

		{"spdadd", policyAdd(func(*pfkey.Message) {}), 0, ""},
		{"spdadd of a taken selector", spdadd(pfkey.DirOut, "10.1.0.0/16", "10.2.0.0/16"), syscall.EEXIST, ""},
		{"spdadd of a taken selector, not masked", spdadd(pfkey.DirOut, "10.1.9.9/16", "10.2.9.9/16"), syscall.EEXIST, ""},
		{"spdadd of a taken selector the other way", spdadd(pfkey.DirIn, "10.1.0.0/16", "10.2.0.0/16"), 0, ""},
		{"spdadd without source", policyAdd(func(m *pfkey.Message) { m.Src = nil }), syscall.EINVAL, "missing"},
		{"spdadd without destination", policyAdd(func(m *pfkey.Message) { m.Dst = nil }), syscall.EINVAL, "missing"},
		{"spdadd without policy", policyAdd(func(m *pfkey.Message) { m.Policy = nil }), syscall.EINVAL, "missing"},
		{"spdadd forwards", policyAdd(func(m *pfkey.Message) { m.Policy.Dir = 3 }), syscall.EINVAL, "neither in nor out"},
		{"spdadd of a long prefix", policyAdd(func(m *pfkey.Message) { m.Src.PrefixLen = 33 }), syscall.EINVAL, "at most /32"},
		{"spdadd of two families", policyAdd(func(m *pfkey.Message) { m.Dst = selected("fd00::/8") }), syscall.EINVAL, "two address families"},
		{"spdadd of a mapped prefix", policyAdd(func(m *pfkey.Message) { m.Src = host(netip.MustParseAddr("::ffff:10.0.0.1")) }), syscall.EINVAL, "write 10.0.0.1"},
		{"spdadd of two protocols", policyAdd(func(m *pfkey.Message) { m.Dst.Proto = 6 }), syscall.EINVAL, "different protocols"},
		{"spdadd with a lifetime", policyAdd(func(m *pfkey.Message) { m.Hard = new(pfkey.Lifetime) }), syscall.EOPNOTSUPP, "lifetimes"},
		{"spdadd of gre with a port", upper(47, 80, 0), syscall.EINVAL, "do not go with gre"},
		{"spdadd of udp with ports", upper(17, 80, 81), 0, ""},
		{"spdadd of protocol 0", upper(0, 0, 0), syscall.EINVAL, "255 is any"},
		{"spdadd of icmp6 over IPv4", upper(58, 0, 0), syscall.EINVAL, "icmp6 of IPv6"},
		{"spdadd of icmp over IPv6", policyAdd(func(m *pfkey.Message) {
			m.Src, m.Dst = selected("fd00::/8"), selected("fd00::/8")
			m.Src.Proto, m.Dst.Proto = 1, 1
		}), syscall.EINVAL, "is of icmp; icmp is of IPv4"},
		{"spdadd of icmp", upper(1, 255, 255), 0, ""},
		{"spdadd of too large an icmp type", upper(1, 256, 0), syscall.EINVAL, "at most 255"},
		{"spdadd of too large an icmp code", upper(1, 8, 256), syscall.EINVAL, "at most 255"},
		{"spdadd discard", policyAdd(func(m *pfkey.Message) { m.Policy.Type, m.Policy.Requests = 0, nil }), 0, ""},
		{"spdadd none", policyAdd(func(m *pfkey.Message) { m.Policy.Type, m.Policy.Requests = 1, nil }), 0, ""},
		{"spdadd entrust", policyAdd(func(m *pfkey.Message) { m.Policy.Type, m.Policy.Requests = 3, nil }), syscall.EINVAL, "policy type 3"},
		{"spdadd none with a rule", policyAdd(func(m *pfkey.Message) { m.Policy.Type = 1 }), syscall.EINVAL, "no rules"},
		{"spdadd ipsec without rule", policyAdd(func(m *pfkey.Message) { m.Policy.Requests = nil }), syscall.EINVAL, "needs a rule"},
		{"spdadd ipsec with two rules", policyAdd(func(m *pfkey.Message) { m.Policy.Requests = append(m.Policy.Requests, tunnel(a4, b4)) }), syscall.EOPNOTSUPP, "2 rules"},
		{"rule of ah", rule(func(r *pfkey.Request) { r.Proto = 51 }), syscall.EPROTONOSUPPORT, "only esp"},
		{"rule of tcp", rule(func(r *pfkey.Request) { r.Proto = 6 }), syscall.EPROTONOSUPPORT, "protocol 6"},
		{"rule of a wide protocol", rule(func(r *pfkey.Request) { r.Proto = 256 + 50 }), syscall.EPROTONOSUPPORT, "protocol 306"},
		{"rule in transport mode", rule(func(r *pfkey.Request) { *r = transport("", "") }), 0, ""},
		{"transport with ends", rule(func(r *pfkey.Request) { *r = transport("10.3.0.1", "10.4.255.255") }), 0, ""},
		{"transport with one end", rule(func(r *pfkey.Request) { *r = transport("10.3.0.1", "") }), syscall.EINVAL, "no host"},
		{"transport from elsewhere", rule(func(r *pfkey.Request) { *r = transport("10.4.0.1", "10.4.0.1") }), syscall.EINVAL, "leave them out"},
		{"transport to elsewhere", rule(func(r *pfkey.Request) { *r = transport("10.3.0.1", "10.3.0.1") }), syscall.EINVAL, "leave them out"},
		{"transport of another family", rule(func(r *pfkey.Request) { *r = transport("fd00::1", "fd00::2") }), syscall.EINVAL, "leave them out"},
		{"transport of two families", rule(func(r *pfkey.Request) { *r = transport("10.3.0.1", "fd00::2") }), syscall.EINVAL, "two address families"},
		{"transport to nobody", rule(func(r *pfkey.Request) { *r = transport("10.3.0.1", "0.0.0.0") }), syscall.EINVAL, "no host"},
		{"transport of level use", rule(func(r *pfkey.Request) { *r = transport("", ""); r.Level = pfkey.LevelUse }), syscall.EOPNOTSUPP, "require is"},
		{"transport of a reqid above", rule(func(r *pfkey.Request) { *r = transport("", ""); r.Reqid = 16384 }), 0, ""},
		{"transport to a group", policyAdd(func(m *pfkey.Message) { m.Dst, m.Policy.Requests[0] = selected("224.0.0.0/4"), transport("", "") }), syscall.EOPNOTSUPP, "multicast"},
		{"transport of a group", policyAdd(func(m *pfkey.Message) { m.Src, m.Policy.Requests[0] = selected("239.0.0.0/8"), transport("", "") }), syscall.EOPNOTSUPP, "multicast"},
		{"transport to groups and others", policyAdd(func(m *pfkey.Message) { m.Dst, m.Policy.Requests[0] = selected("0.0.0.0/0"), transport("", "") }), 0, ""},
		{"tunnel to a group", rule(func(r *pfkey.Request) { r.Dst = netip.MustParseAddr("224.0.0.1") }), syscall.EOPNOTSUPP, "multicast"},
		{"rule of no mode", rule(func(r *pfkey.Request) { r.Mode = 0 }), syscall.EINVAL, "mode 0"},
		{"tunnel without ends", rule(func(r *pfkey.Request) { r.Src, r.Dst = netip.Addr{}, netip.Addr{} }), syscall.EINVAL, "both ends"},
		{"tunnel of two families", rule(func(r *pfkey.Request) { r.Src, r.Dst = a4, b6 }), syscall.EINVAL, "two address families"},
		{"tunnel to nobody", rule(func(r *pfkey.Request) { r.Dst = netip.IPv4Unspecified() }), syscall.EINVAL, "no host"},
		{"4in6", rule(func(r *pfkey.Request) { r.Src, r.Dst = a6, b6 }), 0, ""},
		{"level default", rule(func(r *pfkey.Request) { r.Level = pfkey.LevelDefault }), 0, ""},
		{"level use", rule(func(r *pfkey.Request) { r.Level = pfkey.LevelUse }), syscall.EOPNOTSUPP, "require is"},
		{"level unique", rule(func(r *pfkey.Request) { r.Level, r.Reqid = pfkey.LevelUnique, 16383 }), 0, ""},
		{"level 4", rule(func(r *pfkey.Request) { r.Level = 4 }), syscall.EINVAL, "level 4"},
		{"reqid of the automatic range", rule(func(r *pfkey.Request) { r.Level, r.Reqid = pfkey.LevelUnique, 16384 }), 0, ""},

		{"spdupdate", spdupdate("10.1.0.0/16", "10.2.0.0/16"), 0, ""},
		{"spdupdate of what is not there", spdupdate("10.8.0.0/16", "10.2.0.0/16"), 0, ""},
		{"spdupdate without policy", with(spdupdate("10.1.0.0/16", "10.2.0.0/16"), func(m *pfkey.Message) { m.Policy = nil }), syscall.EINVAL, "missing"},
		{"spdupdate to entrust", with(spdupdate("10.1.0.0/16", "10.2.0.0/16"), func(m *pfkey.Message) { m.Policy.Type, m.Policy.Requests = 3, nil }), syscall.EINVAL, "policy type 3"},
		{"spdupdate with a lifetime", with(spdupdate("10.1.0.0/16", "10.2.0.0/16"), func(m *pfkey.Message) { m.Soft = new(pfkey.Lifetime) }), syscall.EOPNOTSUPP, "lifetimes"},
		{"spdget", spdget(1), 0, ""},
		{"spdget of what is not there", spdget(2), syscall.ENOENT, "no policy has the ID 2"},
		{"spdget of nothing", bare(pfkey.SPDGET), syscall.EINVAL, "ID is asked for"},

		{"spddelete", spddelete(pfkey.DirOut, "10.1.0.0/16", "10.2.0.0/16"), 0, ""},
		{"spddelete the other way", spddelete(pfkey.DirIn, "10.1.0.0/16", "10.2.0.0/16"), syscall.EINVAL, "no in policy"},
		{"spddelete of another selector", spddelete(pfkey.DirOut, "10.1.0.0/17", "10.2.0.0/16"), syscall.EINVAL, "no out policy"},
		{"spddelete without policy", with(spddelete(1, "10.1.0.0/16", "10.2.0.0/16"), func(m *pfkey.Message) { m.Policy = nil }), syscall.EINVAL, "missing"},
		{"spdflush", bare(pfkey.SPDFLUSH), 0, ""},
		{"spddump", bare(pfkey.SPDDUMP), 0, ""},

		{"commit of nothing", bare(pfkey.COMMIT), syscall.EINVAL, "no transaction"},
		{"abort of nothing", bare(pfkey.ABORT), syscall.EINVAL, "no transaction"},
		{"begin", bare(pfkey.BEGIN), 0, ""},
		{"getspi", bare(pfkey.GETSPI), syscall.EOPNOTSUPP, "GETSPI"},
		{"acquire", bare(pfkey.ACQUIRE), syscall.EOPNOTSUPP, "ACQUIRE"},
		{"unknown type", bare(99), syscall.EOPNOTSUPP, "type 99"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			setup(t, b)
			sas, policies, changes := b.sad.Len(), b.spd.Len(), b.changes.Load()
			got := b.ask(tt.m)
			if len(got) == 0 {
				t.Fatal("no answer")
			}
			r := got[0]
			if syscall.Errno(r.Errno) != tt.want || !strings.Contains(r.Text, tt.text) || tt.text == "" && r.Text != "" {
				t.Fatalf("errno %v, text %q; want %v and %q", syscall.Errno(r.Errno), r.Text, tt.want, tt.text)
			}
			if tt.want == 0 {
				return
			}
			want := &pfkey.Message{Type: tt.m.Type, SAType: tt.m.SAType, Seq: tt.m.Seq, PID: tt.m.PID, Errno: r.Errno, Text: r.Text}
			if len(got) != 1 || !reflect.DeepEqual(r, want) {
				t.Errorf("the refusal is %+v, want the bare header", r)
			}
			if b.sad.Len() != sas || b.spd.Len() != policies || b.changes.Load() != changes {
				t.Error("a refused request changed something")
			}
		})
	}
}

// Port 0 is nobody's port, also where the host encapsulates on none.
func TestEncapsulationNeedsBothPorts(t *testing.T) {
	for _, port := range []uint16{0, nattPort} {
		for _, n := range []pfkey.NATT{{SrcPort: 0, DstPort: 0}, {SrcPort: nattPort}, {DstPort: nattPort}} {
			n.Type = pfkey.TypeNATT
			db := sad.New()
			e := control.New(control.Config{SAD: db, SPD: spd.New(), NATTPort: port})
			r := e.Handle(new(control.Session), with(add(0x1000, a4, b4), func(m *pfkey.Message) { m.NATT = &n }))[0]
			if syscall.Errno(r.Errno) != syscall.EINVAL || r.Text != "UDP encapsulation needs both ports" || db.Len() != 0 {
				t.Errorf("ports %d and %d on a host with %d: errno %d, %q", n.SrcPort, n.DstPort, port, r.Errno, r.Text)
			}
		}
	}
}

// A host that encapsulates on no port says so, rather than that its port is 0.
func TestEncapsulationSwitchedOff(t *testing.T) {
	e := control.New(control.Config{SAD: sad.New(), SPD: spd.New()})
	m := with(add(0x1000, a4, b4), func(m *pfkey.Message) {
		m.NATT = &pfkey.NATT{Type: pfkey.TypeNATT, SrcPort: nattPort, DstPort: nattPort}
	})
	r := e.Handle(new(control.Session), m)[0]
	if syscall.Errno(r.Errno) != syscall.EINVAL || r.Text != "encapsulation in UDP is switched off (--natt 0)" {
		t.Errorf("errno %d, %q", r.Errno, r.Text)
	}
}

func TestAddReplyHasNoKey(t *testing.T) {
	b := newBench(t)
	got := b.ask(add(0x1000, a4, b4))
	want := []*pfkey.Message{{
		Type: pfkey.ADD, SAType: pfkey.SATypeESP, Seq: 7, PID: 4242,
		SA:  &pfkey.SA{SPI: 0x1000, Replay: 4, State: pfkey.StateMature, Enc: alg.AESGCM16, Flags: pfkey.FlagCycSeq},
		SA2: &pfkey.SA2{Mode: pfkey.ModeTunnel, Reqid: 5},
		Src: host(a4), Dst: host(b4),
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got[0], want[0])
	}
	if b.changes.Load() != 1 {
		t.Errorf("OnChange called %d times", b.changes.Load())
	}
}

func TestGetTellsAll(t *testing.T) {
	b := newBench(t)
	window := uint32(4096)
	b.must(t, with(add(0x1000, a6, b6), func(m *pfkey.Message) {
		m.SA.Enc, m.SA.Auth = alg.AESCBC, alg.HMACSHA2_256
		m.EncKey = &pfkey.Key{Bits: 128, Data: []byte("0123456789abcdef")}
		m.AuthKey = &pfkey.Key{Bits: 256, Data: []byte("0123456789abcdef0123456789abcdef")}
		m.NATT = &pfkey.NATT{Type: pfkey.TypeNATT, SrcPort: 4500, DstPort: 10000}
		m.Replay = &window
	}))
	sa := b.sad.Get(sad.ID{SPI: 0x1000, Proto: sad.ProtoESP, Dst: b6})
	sa.Reserve(3)
	sa.Count(3, 3000, boot+5)

	want := &pfkey.Message{
		Type: pfkey.GET, SAType: pfkey.SATypeESP, Reserved: 1, Seq: 3, PID: 4,
		SA:      &pfkey.SA{SPI: 0x1000, Replay: 255, State: pfkey.StateMature, Enc: alg.AESCBC, Auth: alg.HMACSHA2_256, Flags: pfkey.FlagCycSeq},
		SA2:     &pfkey.SA2{Mode: pfkey.ModeTunnel, Sequence: 3, Reqid: 5},
		Replay:  &window,
		Current: &pfkey.Lifetime{Allocations: 3, Bytes: 3000, AddTime: boot, UseTime: boot + 5},
		Src:     host(a6), Dst: host(b6),
		EncKey:  &pfkey.Key{Bits: 128, Data: []byte("0123456789abcdef")},
		AuthKey: &pfkey.Key{Bits: 256, Data: []byte("0123456789abcdef0123456789abcdef")},
		NATT:    &pfkey.NATT{Type: pfkey.TypeNATT, SrcPort: 4500, DstPort: 10000},
	}
	get := named(pfkey.GET, 0x1000, a6, b6)
	get.Seq, get.PID = 3, 4
	if got := b.ask(get); !reflect.DeepEqual(got[0], want) {
		t.Errorf("got %+v\nwant %+v", got[0], want)
	}
}

func TestDumpCountsDown(t *testing.T) {
	b := newBench(t)
	for spi := range uint32(4) {
		b.must(t, add(0x1000+spi, a4, b4))
	}
	var seqs, spis []uint32
	for _, r := range b.ask(bare(pfkey.DUMP)) {
		if r.Type != pfkey.DUMP || r.PID != 4242 || r.EncKey == nil || r.SAType != pfkey.SATypeESP {
			t.Errorf("got %+v", r)
		}
		seqs, spis = append(seqs, r.Seq), append(spis, r.SA.SPI)
	}
	if !slices.Equal(seqs, []uint32{3, 2, 1, 0}) || !slices.Equal(spis, []uint32{0x1000, 0x1001, 0x1002, 0x1003}) {
		t.Errorf("seq %v, SPIs %#x", seqs, spis)
	}
}

func TestEmptyDumps(t *testing.T) {
	for _, typ := range []uint8{pfkey.DUMP, pfkey.SPDDUMP} {
		b := newBench(t)
		want := bare(typ)
		want.Errno = uint8(syscall.ENOENT)
		if got := b.ask(bare(typ)); len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			t.Errorf("got %+v", got[0])
		}
	}
}

func TestDeletePair(t *testing.T) {
	b := newBench(t)
	third := netip.MustParseAddr("203.0.113.3")
	b.must(t, add(0x1000, a4, b4), add(0x1001, a4, b4), add(0x1002, b4, a4), add(0x1003, third, b4), add(0x1004, a4, third))
	b.must(t, with(named(pfkey.DELETE, 0, a4, b4), func(m *pfkey.Message) { m.SA = nil }))
	if got := b.spis(); !slices.Equal(got, []uint32{0x1002, 0x1003, 0x1004}) {
		t.Errorf("left are %#x", got)
	}
}

// In a transaction what was staged goes too, but for what another pair has.
func TestDeletePairInATransaction(t *testing.T) {
	b := newBench(t)
	deleteall := func() *pfkey.Message {
		return with(named(pfkey.DELETE, 0, a4, b4), func(m *pfkey.Message) { m.SA = nil })
	}
	b.must(t, add(0x1000, a4, b4), add(0x1001, b4, a4), bare(pfkey.BEGIN),
		named(pfkey.DELETE, 0x1000, a4, b4), add(0x1000, a4, b4), // hides the live one
		add(0x1002, a4, b4), named(pfkey.DELETE, 0x1002, a4, b4),
		add(0x1003, a4, b4), add(0x1004, b4, a4),
		deleteall(), add(0x1005, a4, b4), deleteall(), deleteall(), add(0x1003, a4, b4))
	var staged []uint32
	for _, r := range b.ask(bare(pfkey.DUMP)) {
		staged = append(staged, r.SA.SPI)
	}
	if want := []uint32{0x1001, 0x1004, 0x1003}; !slices.Equal(staged, want) {
		t.Errorf("staged are %#x, want %#x", staged, want)
	}
	b.must(t, bare(pfkey.COMMIT))
	if got := b.spis(); !slices.Equal(got, []uint32{0x1001, 0x1003, 0x1004}) {
		t.Errorf("left are %#x", got)
	}
}

func TestFlushes(t *testing.T) {
	b := newBench(t)
	setup(t, b)
	b.must(t, &pfkey.Message{Type: pfkey.FLUSH, SAType: pfkey.SATypeAH})
	if b.sad.Len() != 1 {
		t.Error("a flush of ah flushed esp")
	}
	b.must(t, bare(pfkey.FLUSH), bare(pfkey.SPDFLUSH))
	if b.sad.Len() != 0 || b.spd.Len() != 0 {
		t.Errorf("%d SAs and %d policies left", b.sad.Len(), b.spd.Len())
	}
}

func TestRegister(t *testing.T) {
	b := newBench(t)
	register := bare(pfkey.REGISTER)
	register.SAType = pfkey.SATypeESP
	r := b.ask(register)[0]
	if !slices.Contains(r.SupAuth, pfkey.SupportedAlg{ID: alg.HMACSHA2_256, MinBits: 256, MaxBits: 256}) {
		t.Errorf("authentication: %+v", r.SupAuth)
	}
	if !slices.Contains(r.SupEnc, pfkey.SupportedAlg{ID: alg.AESGCM16, IVLen: 8, MinBits: 160, MaxBits: 288}) {
		t.Errorf("encryption: %+v", r.SupEnc)
	}
	if r = b.ask(register)[0]; syscall.Errno(r.Errno) != syscall.EEXIST {
		t.Errorf("registering twice: %v", syscall.Errno(r.Errno))
	}
	b.must(t, bare(pfkey.REGISTER))
}

func TestSharedKeyWarnsOnce(t *testing.T) {
	b := newBench(t)
	shared := func(spi uint32) *pfkey.Message {
		return with(add(spi, a4, b4), func(m *pfkey.Message) { m.EncKey = &pfkey.Key{Bits: 160, Data: []byte("SECRETSECRETSECRET!!")} })
	}
	const warning = "use the same key"
	b.must(t, shared(0x1000))
	b.must(t, named(pfkey.DELETE, 0x1000, a4, b4), shared(0x1000))
	b.must(t, bare(pfkey.BEGIN), bare(pfkey.FLUSH), shared(0x1001), bare(pfkey.COMMIT))
	if strings.Contains(b.log.String(), warning) {
		t.Errorf("warned of one SA: %s", b.log.String())
	}
	for spi := uint32(0x1002); spi <= 0x1003; spi++ { // the second warns, the third does not
		b.must(t, shared(spi))
		if n := strings.Count(b.log.String(), warning); n != 1 || !strings.Contains(b.log.String(), "other_spi=0x00001001") {
			t.Errorf("after SPI %#x there are %d warnings: %s", spi, n, b.log.String())
		}
	}
	if strings.Contains(b.log.String(), "SECRET") || strings.Contains(b.log.String(), "534543") {
		t.Errorf("the key is in the log: %s", b.log.String())
	}
}

// The other SA that a warning names is one that there is.
func TestSharedKeyNamesALiveSA(t *testing.T) {
	b := newBench(t)
	shared := func(spi uint32) *pfkey.Message {
		return with(add(spi, a4, b4), func(m *pfkey.Message) { m.EncKey = gcmKey(9) })
	}
	b.must(t, shared(0x1001), shared(0x1002), named(pfkey.DELETE, 0x1001, a4, b4), shared(0x1003))
	if !strings.Contains(b.log.String(), "other_spi=0x00001002") || strings.Count(b.log.String(), "other_spi=0x00001001") != 1 {
		t.Error(b.log.String())
	}
}

func TestKeysStayOutOfRefusals(t *testing.T) {
	b := newBench(t)
	for _, change := range []func(*pfkey.Message){
		func(m *pfkey.Message) { m.EncKey.Bits = 151 },
		func(m *pfkey.Message) { m.SA.Enc = 77 },
		func(m *pfkey.Message) { m.SA.Enc = alg.AESCBC },
		func(m *pfkey.Message) { m.AuthKey = m.EncKey },
		func(m *pfkey.Message) { m.SA.SPI = 1 },
	} {
		m := add(0x1000, a4, b4)
		m.EncKey = &pfkey.Key{Bits: 152, Data: []byte("SECRETSECRETSECRET!")}
		change(m)
		r := b.ask(m)[0]
		if r.Errno == 0 || strings.Contains(r.Text+b.log.String(), "SECRET") || strings.Contains(r.Text+b.log.String(), "53454352") {
			t.Errorf("errno %d, text %q, log %s", r.Errno, r.Text, b.log.String())
		}
	}
}
