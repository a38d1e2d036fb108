package dataplane_test

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"ipsecd/packet"
)

func addr(s string) packet.Addr { return packet.AddrFrom(netip.MustParseAddr(s)) }

func key(t *testing.T) []byte {
	t.Helper()
	k, err := hex.DecodeString(strings.TrimPrefix(testKey, "0x"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Both ends of a tunnel agree, raw and encapsulated, and what comes out is
// what went in.
func TestTwoEngines(t *testing.T) {
	for _, c := range []struct{ name, src, dst string }{
		{"raw", "10.1.0.1", "10.2.0.1"},
		{"encapsulated", "10.1.2.1", "10.2.2.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newTestEngine(t), newTestEngine(t)
			a.load(t, hostA)
			b.load(t, hostB)
			var in [][]byte
			for n := range 100 {
				in = append(in, udp4(c.src, c.dst, n*13))
			}
			sealed, clear := a.send(in...)
			if len(sealed) != len(in) || len(clear) != 0 {
				t.Fatalf("%d sealed, %d in clear, of %d", len(sealed), len(clear), len(in))
			}
			for i, p := range sealed {
				if bytes.Contains(p, in[i][12:20]) {
					t.Fatalf("packet %d shows its inner addresses", i)
				}
			}
			out := b.open(sealed...)
			if len(out) != len(in) {
				t.Fatalf("%d of %d came out", len(out), len(in))
			}
			for i := range in {
				if !bytes.Equal(in[i], out[i]) {
					t.Fatalf("packet %d changed:\n in %x\nout %x", i, in[i], out[i])
				}
			}
		})
	}
}

func TestPassesInClear(t *testing.T) {
	a := newTestEngine(t)
	a.load(t, hostA)
	in := [][]byte{
		udp4("10.1.4.1", "10.2.4.1", 40),  // policy none
		udp4("10.9.9.9", "10.2.0.1", 300), // no policy
	}
	sealed, clear := a.send(in...)
	if len(sealed) != 0 || len(clear) != 2 || !bytes.Equal(clear[0], in[0]) || !bytes.Equal(clear[1], in[1]) {
		t.Errorf("%d sealed, %d in clear", len(sealed), len(clear))
	}
	if a.Bypassed.Load() != 2 {
		t.Errorf("%d counted", a.Bypassed.Load())
	}
}

// A fragment shows no ports; a policy with ports must catch it all the same.
func TestFragmentDoesNotSlipPastPorts(t *testing.T) {
	a := newTestEngine(t)
	a.load(t, `
add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -E aes-gcm-16 `+testKey+`;
spdadd 10.1.0.0/24[53] 10.2.0.0/24 udp -P out none;
spdadd 10.1.0.0/24 10.2.0.0/24[2000] udp -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;`)
	p := udp4("10.1.0.1", "10.2.0.1", 40)
	p[6], p[7] = 0, 9 // offset 72
	sealed, clear := a.send(p)
	if len(sealed) != 1 || len(clear) != 0 {
		t.Errorf("%d sealed, %d in clear", len(sealed), len(clear))
	}
}

// What the caches remember does not outlive a change of the databases.
func TestChangesTakeEffect(t *testing.T) {
	a := newTestEngine(t)
	a.load(t, hostA)
	p := udp4("10.1.0.1", "10.2.0.1", 40)
	for i, step := range []struct {
		script string
		sealed int
		clear  int
	}{
		{"", 1, 0},
		{"flush;", 0, 0},
		{"add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -u 1 -E aes-gcm-16 " + testKey + ";", 1, 0},
		{"spdflush;", 0, 1},
		{"spdadd 10.1.0.0/24 10.2.0.0/24 any -P out discard;", 0, 0},
	} {
		a.load(t, step.script)
		sealed, clear := a.send(p)
		if len(sealed) != step.sealed || len(clear) != step.clear {
			t.Errorf("step %d: %d sealed, %d in clear", i, len(sealed), len(clear))
		}
	}
}

// A packet that would be longer than IP allows, once sealed, is dropped and
// counted, and nothing else with it.
func TestLongest(t *testing.T) {
	a, b := newTestEngine(t), newTestEngine(t)
	a.load(t, hostA)
	b.load(t, hostB)
	fits := udp4("10.1.0.1", "10.2.0.1", 65535-packet.IPv4HeaderLen-8-100)
	sealed, _ := a.send(fits, udp4("10.1.0.1", "10.2.0.1", 65535-packet.IPv4HeaderLen-8), fits)
	if out := b.open(sealed...); len(out) != 2 || !bytes.Equal(out[1], fits) {
		t.Errorf("%d of 2 came out", len(out))
	}
	if n := a.Drops.Get(packet.TooBig); n != 1 {
		t.Errorf("%d dropped as too big", n)
	}
}
