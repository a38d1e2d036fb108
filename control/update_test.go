package control_test

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"ipsecd/crypto/alg"
	"ipsecd/pfkey"
	"ipsecd/sad"
)

// encapsulated is an ADD in UDP to a port.
func encapsulated(spi uint32, port uint16) *pfkey.Message {
	return with(add(spi, a4, b4), func(m *pfkey.Message) {
		m.NATT = &pfkey.NATT{Type: pfkey.TypeNATT, SrcPort: nattPort, DstPort: port}
	})
}

// move is an UPDATE without keys to a port.
func move(spi uint32, port uint16) *pfkey.Message {
	return with(named(pfkey.UPDATE, spi, a4, b4), func(m *pfkey.Message) {
		m.NATT = &pfkey.NATT{Type: pfkey.TypeNATT, SrcPort: nattPort, DstPort: port}
	})
}

// rekey is m, an ADD, as an UPDATE with another key.
func rekey(m *pfkey.Message) *pfkey.Message {
	m.Type, m.EncKey = pfkey.UPDATE, gcmKey(0x77)
	return m
}

func (b *bench) sa(spi uint32) *sad.SA {
	return b.sad.Get(sad.ID{SPI: spi, Proto: sad.ProtoESP, Dst: b4})
}

// port is the one that a GET in the bench's session shows, 0 for none.
func (b *bench) port(t *testing.T, spi uint32) uint16 {
	t.Helper()
	r := b.ask(named(pfkey.GET, spi, a4, b4))[0]
	if r.Errno != 0 {
		t.Fatal(syscall.Errno(r.Errno), r.Text)
	}
	if r.NATT == nil {
		return 0
	}
	return r.NATT.DstPort
}

func TestUpdateErrno(t *testing.T) {
	moved := func(change func(*pfkey.Message)) *pfkey.Message { return with(move(0x1000, 9), change) }
	keyed := func(change func(*pfkey.Message)) *pfkey.Message { return with(rekey(add(0x1000, a4, b4)), change) }
	wide := uint32(64)
	tests := []struct {
		name string
		m    *pfkey.Message
		want syscall.Errno
		text string
	}{
		{"ports", moved(func(*pfkey.Message) {}), 0, ""},
		{"nothing", moved(func(m *pfkey.Message) { m.NATT = nil }), 0, ""},
		{"what it is already", moved(func(m *pfkey.Message) {
			m.SA = &pfkey.SA{SPI: 0x1000, Replay: 4, State: pfkey.StateMature, Enc: alg.AESGCM16,
				Flags: pfkey.FlagCycSeq | pfkey.FlagESN | pfkey.FlagPadRandom}
			m.SA2 = &pfkey.SA2{Mode: pfkey.ModeTunnel, Reqid: 5}
		}), 0, ""},
		{"zeros", moved(func(m *pfkey.Message) { m.SA2, m.Replay = new(pfkey.SA2), new(uint32) }), 0, ""},
		{"mode", moved(func(m *pfkey.Message) { m.SA2 = &pfkey.SA2{Mode: pfkey.ModeTransport} }), syscall.EINVAL, "not mode; give the keys"},
		{"unknown mode", moved(func(m *pfkey.Message) { m.SA2 = &pfkey.SA2{Mode: 9} }), syscall.EINVAL, "mode 9"},
		{"request id", moved(func(m *pfkey.Message) { m.SA2 = &pfkey.SA2{Reqid: 6} }), syscall.EINVAL, "not request id"},
		{"window", moved(func(m *pfkey.Message) { m.Replay = &wide }), syscall.EINVAL, "not replay window"},
		{"window in octets", moved(func(m *pfkey.Message) { m.SA.Replay = 8 }), syscall.EINVAL, "not replay window"},
		{"padding", moved(func(m *pfkey.Message) { m.SA.Flags = pfkey.FlagESN | pfkey.FlagPadZero }), syscall.EINVAL, "not padding"},
		{"ESN alone", moved(func(m *pfkey.Message) { m.SA.Flags = pfkey.FlagESN }), 0, ""},
		{"padding alone", moved(func(m *pfkey.Message) { m.SA.Flags = pfkey.FlagPadRandom }), 0, ""},
		{"other padding alone", moved(func(m *pfkey.Message) { m.SA.Flags = pfkey.FlagPadZero }), syscall.EINVAL, "not padding"},
		{"ESN where there is none", with(move(0x3000, 9), func(m *pfkey.Message) { m.SA.Flags = pfkey.FlagESN }), syscall.EINVAL, "not ESN"},
		{"unknown flag", moved(func(m *pfkey.Message) { m.SA.Flags = 1 }), syscall.EOPNOTSUPP, "0x1"},
		{"cipher", moved(func(m *pfkey.Message) { m.SA.Enc = alg.AESCBC }), syscall.EINVAL, "not algorithms"},
		{"authentication", moved(func(m *pfkey.Message) { m.SA.Auth = alg.HMACSHA1 }), syscall.EINVAL, "not algorithms"},
		{"hard lifetime", moved(func(m *pfkey.Message) { m.Hard = new(pfkey.Lifetime) }), syscall.EOPNOTSUPP, "lifetimes"},
		{"soft lifetime", moved(func(m *pfkey.Message) { m.Soft = new(pfkey.Lifetime) }), syscall.EOPNOTSUPP, "lifetimes"},
		{"ports of others", moved(func(m *pfkey.Message) { m.NATT.SrcPort = 9 }), syscall.EINVAL, "see --natt"},
		{"one port", moved(func(m *pfkey.Message) { m.NATT.DstPort = 0 }), syscall.EINVAL, "both ports"},
		{"another SPI", move(0x1001, 9), syscall.ENOENT, ""},
		{"another source", moved(func(m *pfkey.Message) { m.Src = host(b4) }), syscall.ENOENT, ""},
		{"a reserved SPI", move(255, 9), syscall.EINVAL, "256"},
		{"plain", move(0x2000, 9), syscall.EINVAL, "not encapsulated"},
		{"original addresses of a tunnel", moved(func(m *pfkey.Message) { m.OAI, m.OAR = host(a4), host(b4) }), 0, ""},
		{"original addresses of any mode", with(move(0x4000, 9), func(m *pfkey.Message) { m.OAI = host(a4) }), syscall.EOPNOTSUPP, "tunnel mode alone"},
		{"original addresses of transport mode", with(move(0x3000, 9), func(m *pfkey.Message) { m.OAI = host(a4) }), syscall.EOPNOTSUPP, "original addresses"},
		{"original addresses of transport mode alone", with(move(0x3000, 9), func(m *pfkey.Message) { m.NATT, m.OAR = nil, host(a4) }), syscall.EOPNOTSUPP, "original addresses"},
		{"ah", moved(func(m *pfkey.Message) { m.SAType = pfkey.SATypeAH }), syscall.EPROTONOSUPPORT, "only esp"},
		{"no SPI", moved(func(m *pfkey.Message) { m.SA = nil }), syscall.EINVAL, "SPI is missing"},

		{"keys", keyed(func(*pfkey.Message) {}), 0, ""},
		{"keys and all else", keyed(func(m *pfkey.Message) {
			m.SA2, m.Replay, m.SA.Flags = &pfkey.SA2{Mode: pfkey.ModeTransport, Reqid: 7}, &wide, pfkey.FlagPadRandom
		}), 0, ""},
		{"keys of another SPI", rekey(add(0x1001, a4, b4)), syscall.ENOENT, ""},
		{"keys of another source", keyed(func(m *pfkey.Message) { m.Src = host(b4) }), syscall.ENOENT, ""},
		{"authentication key alone", keyed(func(m *pfkey.Message) { m.EncKey, m.AuthKey = nil, gcmKey(1) }), syscall.EINVAL, "-E"},
		{"short key", keyed(func(m *pfkey.Message) { m.EncKey = &pfkey.Key{Bits: 128, Data: make([]byte, 16)} }), syscall.EINVAL, "160"},
		{"keys and a lifetime", keyed(func(m *pfkey.Message) { m.Hard = new(pfkey.Lifetime) }), syscall.EOPNOTSUPP, "lifetimes"},
	}
	for _, tt := range tests {
		for _, name := range []string{"at once", "in a transaction"} {
			t.Run(tt.name+" "+name, func(t *testing.T) {
				b := newBench(t)
				b.must(t, with(encapsulated(0x1000, 61001), func(m *pfkey.Message) { m.SA.Flags |= pfkey.FlagESN | pfkey.FlagPadRandom }), add(0x2000, a4, b4),
					with(encapsulated(0x3000, 61003), func(m *pfkey.Message) { m.SA2.Mode = pfkey.ModeTransport }),
					with(encapsulated(0x4000, 61004), func(m *pfkey.Message) { m.SA2 = nil }))
				if name != "at once" {
					b.must(t, bare(pfkey.BEGIN))
				}
				before := b.ask(bare(pfkey.DUMP))
				r := b.ask(tt.m)[0]
				if syscall.Errno(r.Errno) != tt.want || !strings.Contains(r.Text, tt.text) || tt.text == "" && r.Text != "" {
					t.Errorf("errno %v, text %q; want %v and %q", syscall.Errno(r.Errno), r.Text, tt.want, tt.text)
				}
				if tt.want != 0 && !reflect.DeepEqual(b.ask(bare(pfkey.DUMP)), before) {
					t.Error("a refused request changed something")
				}
			})
		}
	}
}

// An UPDATE with keys is answered as an ADD is, and leaves the SA that an ADD
// would have made; with the same keys the numbers go on.
func TestUpdateReplaces(t *testing.T) {
	b := newBench(t)
	b.must(t, with(add(0x1000, a4, b4), func(m *pfkey.Message) { m.SA.Flags = pfkey.FlagESN }))
	old := b.sa(0x1000)
	old.Reserve(3)
	update := with(add(0x1000, a4, b4), func(m *pfkey.Message) {
		m.Type, m.SA2, m.SA.Flags = pfkey.UPDATE, &pfkey.SA2{Mode: pfkey.ModeTransport, Reqid: 9}, pfkey.FlagESN|pfkey.FlagPadZero
	})
	want := &pfkey.Message{
		Type: pfkey.UPDATE, SAType: pfkey.SATypeESP, Seq: 7, PID: 4242,
		SA:  &pfkey.SA{SPI: 0x1000, Replay: 4, State: pfkey.StateMature, Enc: alg.AESGCM16, Flags: pfkey.FlagESN | pfkey.FlagPadZero},
		SA2: &pfkey.SA2{Mode: pfkey.ModeTransport, Reqid: 9},
		Src: host(a4), Dst: host(b4),
	}
	if got := b.ask(update)[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	sa := b.sa(0x1000)
	if sa == old || !old.Retired() || b.sad.Len() != 1 {
		t.Fatalf("%d SAs, replaced: %v", b.sad.Len(), sa != old)
	}
	if s := sa.Spec(); s.Mode != sad.ModeTransport || s.Reqid != 9 || !s.ESN || s.Pad != sad.PadZero {
		t.Errorf("spec %+v", s)
	}
	if g := sa.Reserve(1); g.Seq != 4 {
		t.Errorf("goes on with %d", g.Seq)
	}
	b.must(t, rekey(add(0x1000, a4, b4)))
	if g := b.sa(0x1000).Reserve(1); g.Seq != 1 {
		t.Errorf("another key begins with %d", g.Seq)
	}
}

// An UPDATE without keys changes the ports of the SA that is there.
func TestUpdateMoves(t *testing.T) {
	b := newBench(t)
	b.must(t, encapsulated(0x1000, 61001))
	sa := b.sa(0x1000)
	sa.Reserve(3)
	before := b.changes.Load()
	want := &pfkey.Message{
		Type: pfkey.UPDATE, SAType: pfkey.SATypeESP,
		SA:  &pfkey.SA{SPI: 0x1000, Replay: 4, State: pfkey.StateMature, Enc: alg.AESGCM16, Flags: pfkey.FlagCycSeq},
		SA2: &pfkey.SA2{Mode: pfkey.ModeTunnel, Reqid: 5},
		Src: host(a4), Dst: host(b4),
	}
	if got := b.ask(move(0x1000, 9))[0]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if b.sa(0x1000) != sa || sa.Encap() != (sad.Encap{SrcPort: nattPort, DstPort: 9}) || b.port(t, 0x1000) != 9 {
		t.Errorf("encapsulation %+v", sa.Encap())
	}
	if b.changes.Load() != before+1 {
		t.Errorf("OnChange called %d times", b.changes.Load()-before)
	}
}

// What was null, padded or in transport mode is told as it was said.
func TestGetOfNull(t *testing.T) {
	for _, key := range []*pfkey.Key{nil, {}, {Bits: 8, Data: []byte{7}}} {
		b := newBench(t)
		b.must(t, with(add(0x1000, a4, b4), func(m *pfkey.Message) {
			m.SA.Enc, m.SA.Auth, m.SA.Flags = alg.NullEnc, alg.HMACSHA1, pfkey.FlagPadRandom|pfkey.FlagESN
			m.SA2.Mode = pfkey.ModeTransport
			m.EncKey, m.AuthKey = key, &pfkey.Key{Bits: 160, Data: []byte("01234567890123456789")}
		}))
		r := b.ask(named(pfkey.GET, 0x1000, a4, b4))[0]
		want := pfkey.Key{}
		if key != nil {
			want = *key
		}
		if r.EncKey == nil || r.EncKey.Bits != want.Bits || !slices.Equal(r.EncKey.Data, want.Data) || string(r.AuthKey.Data) != "01234567890123456789" {
			t.Errorf("keys %v %v", r.EncKey, r.AuthKey)
		}
		if r.SA.Flags != 0x500 || r.SA2.Mode != pfkey.ModeTransport {
			t.Errorf("flags %#x, mode %d", r.SA.Flags, r.SA2.Mode)
		}
	}
}

// Two SAs that encrypt nothing share a key when they share the one that
// authenticates.
func TestSharedKeyOfNull(t *testing.T) {
	null := func(spi uint32, enc, auth byte) *pfkey.Message {
		return with(add(spi, a4, b4), func(m *pfkey.Message) {
			m.SA.Enc, m.SA.Auth, m.EncKey, m.AuthKey = alg.NullEnc, alg.HMACSHA1, gcmKey(enc), gcmKey(auth)
		})
	}
	b := newBench(t)
	b.must(t, null(0x1000, 1, 1), null(0x1001, 1, 2))
	if strings.Contains(b.log.String(), "same key") {
		t.Errorf("warned of keys that mean nothing: %s", b.log.String())
	}
	b.must(t, null(0x1002, 2, 2))
	if !strings.Contains(b.log.String(), "same key") {
		t.Error("no warning")
	}
}

// Updates and SPDGET over the socket, and a script as setkey sends it.
func TestServerUpdates(t *testing.T) {
	b := newBench(t)
	c := dial(t, serve(t, b))
	c.must(encapsulated(0x1000, 61001))
	c.must(spdadd(pfkey.DirOut, "10.1.0.0/16", "10.2.0.0/16"))
	if r := c.must(move(0x1000, 9)); r.SA.Enc != alg.AESGCM16 || r.EncKey != nil {
		t.Errorf("got %+v", r)
	}
	if r := c.must(named(pfkey.GET, 0x1000, a4, b4)); r.NATT == nil || r.NATT.DstPort != 9 {
		t.Errorf("got %+v", r)
	}
	if r := c.must(rekey(add(0x1000, a4, b4))); r.EncKey != nil {
		t.Errorf("the key is in %+v", r)
	}
	r := c.must(with(spdupdate("10.1.0.0/16", "10.2.0.0/16"), func(m *pfkey.Message) {
		m.Policy.Requests[0] = transport("10.1.0.1", "10.2.0.1")
	}))
	got := c.must(spdget(r.Policy.ID))
	if want := transport("10.1.0.1", "10.2.0.1"); len(got.Policy.Requests) != 1 || got.Policy.Requests[0] != want {
		t.Errorf("got %+v", got.Policy)
	}
	c.send(spdget(1))
	if r := c.receive(); syscall.Errno(r.Errno) != syscall.ENOENT || r.Text == "" {
		t.Errorf("got %+v", r)
	}
	if err := b.Load("f", []byte(`update 192.0.2.1 198.51.100.2 esp 0x1000 -m transport -esn -E null -A hmac-sha1 "01234567890123456789";
		spdupdate 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/fd00::1-fd00::2/require;`)); err != nil {
		t.Fatal(err)
	}
	if s := b.sa(0x1000).Spec(); s.Enc != alg.NullEnc || !s.ESN || s.Mode != sad.ModeTransport {
		t.Errorf("%+v", s)
	}
	for p := range b.spd.All() {
		if p.Requests[0].Src != netip.MustParseAddr("fd00::1") {
			t.Errorf("%+v", p)
		}
	}
}

// An UPDATE with the same keys goes on with both directions of the SA: what was
// received stays received, in the high half of ESN too, and no quarter of the
// numbers is too late.
func TestUpdateGoesOn(t *testing.T) {
	for _, name := range []string{"at once", "in a transaction"} {
		b := newBench(t)
		wide := uint32(64)
		m := with(add(0x1000, a4, b4), func(m *pfkey.Message) { m.Replay, m.SA.Flags = &wide, pfkey.FlagESN })
		b.must(t, m, add(0x2000, a4, b4))
		sa := b.sa(0x1000)
		const top = 5<<32 + 7
		if !sa.Window.Accept(top) {
			t.Fatal("the window is broken")
		}
		for range 7 {
			b.sa(0x2000).Reserve(1 << 29)
		}
		last := b.sa(0x2000).Usage().Seq
		if last < 3<<30 {
			t.Fatalf("%#x is not in the last quarter", last)
		}
		if name != "at once" {
			b.must(t, bare(pfkey.BEGIN))
		}
		m.Type = pfkey.UPDATE
		b.must(t, m, with(add(0x2000, a4, b4), func(m *pfkey.Message) { m.Type = pfkey.UPDATE }))
		if name != "at once" {
			b.must(t, bare(pfkey.COMMIT))
		}
		if b.sa(0x1000) == sa {
			t.Fatalf("%s: not replaced", name)
		}
		sa = b.sa(0x1000)
		if n := sa.Sequence(8); n != top+1 || sa.Window.Accept(top) || sa.Window.Accept(top-1) || !sa.Window.Accept(top+1) {
			t.Errorf("%s: expects %#x, or accepts replays", name, n)
		}
		if g := b.sa(0x2000).Reserve(1); g.Seq != last+1 {
			t.Errorf("%s: goes on with %#x behind %#x", name, g.Seq, last)
		}
	}
}

// An SA that is updated keeps its place in dumps, of the session too, and among
// the SAs of its pair.
func TestUpdateKeepsThePlace(t *testing.T) {
	b := newBench(t)
	order := func() (spis []uint32) {
		for _, r := range b.ask(bare(pfkey.DUMP)) {
			spis = append(spis, r.SA.SPI)
		}
		return spis
	}
	newest := func() uint32 {
		src, dst := a4.As16(), b4.As16()
		return b.sad.Outbound(sad.ProtoESP, sad.ModeTunnel, 0, &src, &dst).Spec().SPI
	}
	b.must(t, add(0x1000, a4, b4), add(0x1001, a4, b4), add(0x1002, a4, b4), bare(pfkey.BEGIN), rekey(add(0x1001, a4, b4)))
	want := []uint32{0x1000, 0x1001, 0x1002}
	if got := order(); !slices.Equal(got, want) {
		t.Errorf("staged %#x", got)
	}
	b.must(t, bare(pfkey.COMMIT))
	if got := order(); !slices.Equal(got, want) || newest() != 0x1002 {
		t.Errorf("%#x, the newest is %#x", got, newest())
	}
	b.must(t, bare(pfkey.BEGIN), named(pfkey.DELETE, 0x1001, a4, b4), rekey(add(0x1000, a4, b4)), add(0x1001, a4, b4), bare(pfkey.COMMIT))
	if got := order(); !slices.Equal(got, []uint32{0x1000, 0x1002, 0x1001}) || newest() != 0x1001 {
		t.Errorf("deleted and added: %#x, the newest is %#x", got, newest())
	}
}
