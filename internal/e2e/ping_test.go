package e2e

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// ping sends an echo request from a host's address to another, which only a
// kernel answers, and reports whether the reply came.
func ping(t *testing.T, h *host, src, dst string) bool {
	t.Helper()
	network, proto := "ip4:icmp", 1
	request, reply := icmp.Type(ipv4.ICMPTypeEcho), icmp.Type(ipv4.ICMPTypeEchoReply)
	if netip.MustParseAddr(dst).Is6() {
		network, proto = "ip6:ipv6-icmp", 58
		request, reply = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	var c *icmp.PacketConn
	err := h.ns.Do(func() (err error) {
		c, err = icmp.ListenPacket(network, src)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := icmp.Message{Type: request, Body: &icmp.Echo{ID: 7, Seq: 1, Data: []byte("are you there?")}}
	text, err := m.Marshal(nil) // the kernel sums what is ICMPv6
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteTo(text, &net.IPAddr{IP: net.ParseIP(dst)}); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return false
		}
		got, err := icmp.ParseMessage(proto, buf[:n])
		if err == nil && got.Type == reply && from.String() == dst {
			return true
		}
	}
}
