package dataplane_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ipsecd/packet"
)

// pairScript is two hosts that protect all between them in transport mode, as
// seen from one of them.
func pairScript(src, dst, ports, options string) string {
	proto := "esp"
	if ports != "" {
		proto = "esp-udp"
	}
	return fmt.Sprintf(`add %[1]s%[3]s %[2]s%[3]s %[4]s 0x1001 %[5]s -E aes-gcm-16 %[6]s;
		spdadd %[1]s %[2]s any -P out ipsec esp/transport//require;
		spdadd %[1]s %[2]s any -P in ipsec esp/transport//require;`, src, dst, ports, proto, options, testKey)
}

// In transport mode, too, what comes out is what went in, whatever mode the SA
// names and whatever way it travels; header octets stay visible, others do not.
func TestTransportBetweenEngines(t *testing.T) {
	for _, c := range []struct{ name, src, dst, ports, options string }{
		{"IPv4", "192.0.2.1", "192.0.2.2", "", "-m transport -r 4"},
		{"IPv4 encapsulated", "192.0.2.1", "192.0.2.2", "[4500]", "-m transport -r 4"},
		{"IPv6", "2001:db8::1", "2001:db8::2", "", "-m transport -r 4"},
		{"IPv6 encapsulated", "2001:db8::1", "2001:db8::2", "[4500]", "-m transport -r 4"},
		{"SA of any mode", "192.0.2.1", "192.0.2.2", "", "-r 4"},
		{"ESN", "192.0.2.1", "192.0.2.2", "", "-m transport -esn -r 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			script := pairScript(c.src, c.dst, c.ports, c.options)
			a, b := newTestEngine(t), newTestEngine(t)
			a.load(t, script)
			b.load(t, script)
			var in [][]byte
			for n := range 100 {
				in = append(in, anyUDP(t, c.src, c.dst, bytes.Repeat([]byte{byte(n)}, n*13)))
			}
			sealed, clear := a.send(in...)
			if len(sealed) != len(in) || len(clear) != 0 {
				t.Fatalf("%d sealed, %d in clear, of %d", len(sealed), len(clear), len(in))
			}
			out := b.open(sealed...)
			if len(out) != len(in) {
				t.Fatalf("%d of %d came out", len(out), len(in))
			}
			for i := range in {
				if i > 0 && bytes.Contains(sealed[i], bytes.Repeat([]byte{byte(i)}, 13)) {
					t.Fatalf("packet %d shows its data", i)
				}
				if !bytes.Equal(in[i], out[i]) {
					t.Fatalf("packet %d changed:\n in %x\nout %x", i, in[i], out[i])
				}
			}
		})
	}
}

// A policy in transport mode is for any two hosts of its selector, each pair with
// an SA of its own; with ends it is for these alone.
func TestTransportEnds(t *testing.T) {
	a := newTestEngine(t)
	a.load(t, `add 192.0.2.1 192.0.2.129 esp 0x1001 -E aes-gcm-16 `+testKey+`;
		add 192.0.2.2 192.0.2.129 esp 0x1002 -E aes-gcm-16 0x7b87c452e0602b13e1925c2962e635ad7b9d3f7b;
		spdadd 192.0.2.0/25 192.0.2.128/25 any -P out ipsec esp/transport//require;`)
	for _, c := range []struct {
		src, dst string
		spi      byte
	}{
		{"192.0.2.1", "192.0.2.129", 1},
		{"192.0.2.2", "192.0.2.129", 2},
		{"192.0.2.3", "192.0.2.129", 0},
		{"192.0.2.1", "192.0.2.130", 0},
	} {
		sealed, clear := a.send(udp4(c.src, c.dst, 40))
		spi := byte(0)
		if len(sealed) == 1 {
			spi = sealed[0][23]
		}
		if spi != c.spi || len(clear) != 0 {
			t.Errorf("%s to %s: SPI 0x10%02x, %d in clear, want 0x10%02x", c.src, c.dst, spi, len(clear), c.spi)
		}
	}
	if n := a.Drops.Get(packet.NoSA); n != 2 {
		t.Errorf("%d dropped for want of an SA", n)
	}
}

// What an SA's holder says, it says for itself: in transport mode a packet from
// another source is not let in, though it is sealed with the right key, policy or
// not; and a policy for a tunnel does not take it.
func TestTransportVerified(t *testing.T) {
	const sa = "add %s 192.0.2.2 esp 0x1001 -E aes-gcm-16 " + testKey + ";"
	from := func(src string) []byte {
		a := newTestEngine(t)
		a.load(t, fmt.Sprintf(sa, src)+"spdadd 0.0.0.0/0 192.0.2.2 any -P out ipsec esp/transport//require;")
		sealed, _ := a.send(udp4(src, "192.0.2.2", 40))
		return sealed[0]
	}
	for _, c := range []struct {
		name, policy, src string
		want              packet.Drop
	}{
		{"no policy", "", "192.0.2.1", packet.Kept},
		{"no policy, other source", "", "192.0.2.9", packet.PolicyClash},
		{"policy", "spdadd 192.0.2.1 192.0.2.2 any -P in ipsec esp/transport//require;", "192.0.2.1", packet.Kept},
		{"policy for all, other source", "spdadd 192.0.2.0/24 192.0.2.2 any -P in ipsec esp/transport//require;", "192.0.2.9", packet.PolicyClash},
		{"policy with ends", "spdadd 192.0.2.1 192.0.2.2 any -P in ipsec esp/transport/192.0.2.1-192.0.2.2/require;", "192.0.2.1", packet.Kept},
		{"policy for a tunnel", "spdadd 192.0.2.1 192.0.2.2 any -P in ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;", "192.0.2.1", packet.PolicyClash},
		{"policy with another reqid", "spdadd 192.0.2.1 192.0.2.2 any -P in ipsec esp/transport//unique:9;", "192.0.2.1", packet.PolicyClash},
		{"policy discards", "spdadd 192.0.2.1 192.0.2.2 any -P in discard;", "192.0.2.1", packet.PolicyDiscard},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newTestEngine(t)
			b.load(t, fmt.Sprintf(sa, "192.0.2.1")+c.policy)
			got, want := len(b.open(from(c.src))), 0
			if c.want == packet.Kept {
				want = 1
			}
			if got != want || c.want != packet.Kept && b.Drops.Get(c.want) != 1 {
				t.Errorf("%d came out", got)
			}
		})
	}
}

// An IP-in-IP packet between the two hosts is a payload like any other in
// transport mode. An SA of any mode takes it for a tunnel's, which nobody asked
// for: it is dropped, or else it would speak for anybody.
func TestTransportOfTunnel(t *testing.T) {
	inner := udp4("10.1.0.1", "10.2.0.1", 40)
	ipip := ip4(packet.ProtoIPv4, "192.0.2.1", "192.0.2.2", len(inner))
	copy(ipip[packet.IPv4HeaderLen:], inner)
	const policy = "spdadd 10.1.0.0/24 10.2.0.0/24 any -P in ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;"
	for _, c := range []struct {
		options, policy string
		want            [][]byte
	}{
		{"-m transport", "", [][]byte{ipip}},
		{"-m any", "", nil},
		{"-m any", "spdadd 10.1.0.0/24 10.2.0.0/24 any -P in none;", nil},
		{"-m any", policy, [][]byte{inner}},
	} {
		script := pairScript("192.0.2.1", "192.0.2.2", "", c.options)
		a, b := newTestEngine(t), newTestEngine(t)
		a.load(t, script)
		b.load(t, script+c.policy)
		sealed, _ := a.send(ipip)
		out := b.open(sealed...)
		if diff := cmp.Diff(c.want, out); diff != "" || len(out) == 0 && b.Drops.Get(packet.PolicyClash) != 1 {
			t.Errorf("%s, %q: (-want +got)\n%s", c.options, c.policy, diff)
		}
	}
}
