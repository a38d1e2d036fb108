package dataplane

import (
	"net/netip"
	"testing"

	"ipsecd/packet"
	"ipsecd/sad"
	"ipsecd/spd"
)

// verify and satisfies: each part of a request counts alone.
func TestSatisfies(t *testing.T) {
	a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	sa, err := sad.NewSA(sad.Spec{ID: sad.ID{SPI: 256, Proto: sad.ProtoESP, Dst: b}, Src: a, Mode: sad.ModeAny, Reqid: 5,
		Enc: 20, EncKey: make([]byte, 20)})
	if err != nil {
		t.Fatal(err)
	}
	right := spd.Request{Proto: sad.ProtoESP, Mode: spd.ModeTunnel, Reqid: 5, Src: a, Dst: b}
	for name, tt := range map[string]struct {
		change func(*spd.Request)
		want   bool
	}{
		"all":              {func(*spd.Request) {}, true},
		"no ends":          {func(r *spd.Request) { r.Src, r.Dst = netip.Addr{}, netip.Addr{} }, true},
		"any reqid":        {func(r *spd.Request) { r.Reqid = 0 }, true},
		"mapped ends":      {func(r *spd.Request) { r.Src, r.Dst = netip.AddrFrom16(a.As16()), netip.AddrFrom16(b.As16()) }, true},
		"another source":   {func(r *spd.Request) { r.Src = c }, false},
		"another end":      {func(r *spd.Request) { r.Dst = c }, false},
		"ends swapped":     {func(r *spd.Request) { r.Src, r.Dst = b, a }, false},
		"another reqid":    {func(r *spd.Request) { r.Reqid = 6 }, false},
		"another mode":     {func(r *spd.Request) { r.Mode = spd.ModeTransport }, false},
		"another protocol": {func(r *spd.Request) { r.Proto = 51 }, false},
	} {
		r := right
		tt.change(&r)
		if got := satisfies(sa, sad.ModeTunnel, &r); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A transport policy whose request names ends protects no flow but theirs.
func TestTransportOfOtherEnds(t *testing.T) {
	w := newHandDriven(t)
	w.load(t, `add 10.1.6.1 10.2.0.1 esp 0x2006 -m transport -E aes-gcm-16 0xab87c452e0602b13e1925c2962e635ad7b9d3f7b;
		add 10.1.6.2 10.2.0.1 esp 0x2007 -m transport -E aes-gcm-16 0xbb87c452e0602b13e1925c2962e635ad7b9d3f7b;
		spdadd 10.1.6.0/24 10.2.0.0/24 any -P out ipsec esp/transport/10.1.6.1-10.2.0.1/require;`)
	for _, c := range []struct {
		src, dst byte
		sealed   int
	}{{1, 1, 1}, {2, 1, 0}, {1, 2, 0}} {
		w.wire.n = 0
		p := datagramFrom(6, 30)
		p[15], p[19] = c.src, c.dst
		packet.SetNext(p, 9, packet.ProtoUDP)
		b := lone(p)
		w.in.handle(&b)
		if w.wire.n != c.sealed {
			t.Errorf("from .%d to .%d: %d sealed", c.src, c.dst, w.wire.n)
		}
	}
}
