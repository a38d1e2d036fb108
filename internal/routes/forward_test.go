package routes

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ipsecd/internal/netns"
)

// newGateway makes a host with a TUN that forwards between a LAN and the world,
// where there is 10.2.0.9.
func newGateway(t *testing.T) (lan, gateway, world *host) {
	t.Helper()
	lan, gateway, world = newHost(t, "lan"), newHost(t, "gateway"), newHost(t, "world")
	wires := []struct {
		far               *host
		name              string
		nearAddr, farAddr string
	}{
		{lan, "lan", "10.1.0.1/24", "10.1.0.2/24"},
		{world, "wire", "192.0.2.1/24", "192.0.2.2/24"},
	}
	for _, w := range wires {
		err := netns.Veth(gateway.ns, w.far.ns, w.name, "wire", prefixes(w.nearAddr), prefixes(w.farAddr), 1500)
		if err != nil {
			t.Fatal(err)
		}
	}
	lan.do(func() error { return addDefaults("wire", "10.1.0.1") })
	world.link("inner", "10.2.0.9/32")
	world.do(func() error { return addDefaults("wire", "192.0.2.1") })
	gateway.tun("ipsec0")
	gateway.do(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
			return err
		}
		if err := addDefaults("wire", "192.0.2.2"); err != nil {
			return err
		}
		return SetupLink("ipsec0", 1400, nil, 0, 0)
	})
	return lan, gateway, world
}

// What looks like sealed packets goes round the TUN when this host sends it, and
// into it when this host forwards it for others; what carries the mark goes
// round it.
func TestForward(t *testing.T) {
	lan, gateway, world := newGateway(t)
	m := gateway.start(Config{Link: "ipsec0", NATTPort: 4500})
	gateway.apply(m, []Route{protected("10.1.0.0/16", "10.2.0.0/16")})
	const other = 253 // RFC 3692: for experiments
	tests := []struct {
		proto  int
		bypass bool // without a mark, sent by the gateway
	}{
		{unix.IPPROTO_ESP, true},
		{unix.IPPROTO_AH, true},
		{unix.IPPROTO_COMP, true},
		{unix.IPPROTO_UDP, true},
		{other, false},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint("protocol ", tt.proto), func(t *testing.T) {
			rcv := world.rawSocket(tt.proto)
			send(t, lan.rawSocket(tt.proto), "10.2.0.9", "forwarded")
			awaitTUN(t, gateway.tuns["ipsec0"], "forwarded")

			local := gateway.socket(tt.proto)
			send(t, local, "10.2.0.9", "local")
			if tt.bypass {
				wantText(t, rcv, "local")
			} else {
				awaitTUN(t, gateway.tuns["ipsec0"], "local")
			}

			if err := unix.SetsockoptInt(local, unix.SOL_SOCKET, unix.SO_MARK, testMark); err != nil {
				t.Fatal(err)
			}
			send(t, local, "10.2.0.9", "marked")
			wantText(t, rcv, "marked")
		})
	}
}

// wantText takes the next packet, before which there was no other.
func wantText(t *testing.T, fd int, text string) {
	t.Helper()
	if got := receive(t, fd); !strings.HasSuffix(got, text) {
		t.Fatalf("%q arrived in clear, want %q", got, text)
	}
}
