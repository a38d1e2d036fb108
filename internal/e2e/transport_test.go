package e2e

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// transport is a pair of SAs between two hosts' own addresses, which protect all
// that they say to each other.
type transport struct {
	name           string
	rpFilter       int
	a, b           string
	port           string // "[4500]" for UDP encapsulation
	suite, options string
}

const (
	cbc512 = "-E aes-cbc 0x73bb90ac97e947c7bbc0f55c6b3e1701 -A hmac-sha2-512 0x" +
		"1f0c35a6d2e4988813c05e7d9fa246b06734dc7dbbcdb6256bbac5ea53d3a259aca9e3e10562873837e36c56dc8ec1be7b1f0c35a6d2e4988813c05e7d9fa2%02x"
	own4A, own4B = "198.51.100.1", "198.51.100.2"
	own6A, own6B = "fd00:1::1", "fd00:1::2"
)

// transports are the cases of TestTransport.
func transports() (all []transport) {
	for rpFilter := range 3 {
		for _, port := range []string{"", "[4500]"} {
			all = append(all, transport{"IPv4", rpFilter, own4A, own4B, port, gcm, ""},
				transport{"IPv6", rpFilter, own6A, own6B, port, gcm, ""})
		}
	}
	return append(all,
		transport{"IPv4 cbc", 1, own4A, own4B, "", cbc512, ""}, transport{"IPv6 cbc", 1, own6A, own6B, "[4500]", cbc512, ""},
		transport{"IPv4 esn", 1, own4A, own4B, "", gcm, "-esn"}, transport{"IPv6 esn", 1, own6A, own6B, "", gcm, "-esn"})
}

// script is the setkey file of one end.
func (tr transport) script(end string) string {
	proto, out, in := "esp", "out", "in"
	if tr.port != "" {
		proto = "esp-udp"
	}
	if end == "B" {
		out, in = in, out
	}
	text := "flush; spdflush;\n"
	for i, way := range [][3]string{{tr.a, tr.b, out}, {tr.b, tr.a, in}} {
		suite := fmt.Sprintf(tr.suite, i+1)
		text += fmt.Sprintf("add %s%s %s%s %s %#x -m transport -r 32 %s %s;\n", way[0], tr.port, way[1], tr.port, proto, 0xa001+i, tr.options, suite)
		text += fmt.Sprintf("spdadd %s %s any -P %s ipsec esp/transport//require;\n", way[0], way[1], way[2])
	}
	return text
}

// startTransport starts an ipsecd on both hosts.
func startTransport(a, b *host, tr transport) {
	a.Helper()
	a.start("-f", a.file("setkey.conf", tr.script("A")))
	b.start("-f", b.file("setkey.conf", tr.script("B")))
}

// setRPFilters sets the filter of the wire, and of all links.
func (h *host) setRPFilters(value int) {
	h.Helper()
	h.setRPFilter("all", value)
	h.setRPFilter(wireName, value)
}

func (h *host) setRPFilter(conf string, value int) {
	h.Helper()
	h.must("sh", "-c", fmt.Sprintf("echo %d > /proc/sys/net/ipv4/conf/%s/rp_filter", value, conf))
}

func (h *host) rpFilter(conf string) string {
	h.Helper()
	out, _ := h.run("cat", "/proc/sys/net/ipv4/conf/"+conf+"/rp_filter")
	return strings.TrimSpace(out)
}

// Everything between two hosts on one wire is protected, their own addresses with
// it, and each finds the other by ARP or neighbour discovery, however strictly they
// filter by reverse path.
func TestTransport(t *testing.T) {
	for _, tr := range transports() {
		t.Run(fmt.Sprintf("%s%s rp_filter %d", tr.name, tr.port, tr.rpFilter), func(t *testing.T) {
			t.Parallel()
			a, b := newPair(t)
			for _, h := range []*host{a, b} {
				h.setRPFilters(tr.rpFilter)
				h.must("ip", "neigh", "flush", "all")
			}
			before := [2]string{a.network(), b.network()}
			wire := listen(t, a)
			startTransport(a, b, tr)
			if !ping(t, a, tr.a, tr.b) || !ping(t, b, tr.b, tr.a) {
				t.Fatalf("no echo; logs:\n%s\n%s", a.log, b.log)
			}
			if !ask(t, a, b, tr.a, tr.b, patience) || !ask(t, b, a, tr.b, tr.a, patience) {
				t.Errorf("no answer; logs:\n%s\n%s", a.log, b.log)
			}
			transfer(t, a, b, tr.a, tr.b, many/16, nil)
			transfer(t, b, a, tr.b, tr.a, many/16, nil)
			for _, e := range wire.onlyESP() {
				if e.udp != (tr.port != "") {
					t.Fatalf("SPI %#x in UDP: %v", e.spi, e.udp)
				}
			}
			if a.stop() != 0 || b.stop() != 0 {
				t.Errorf("ipsecd did not end well; logs:\n%s\n%s", a.log, b.log)
			}
			if after := [2]string{a.network(), b.network()}; after != before {
				t.Errorf("the network is not what it was:\n%s\nbut:\n%s", before, after)
			}
		})
	}
}

// onStrictHosts runs f for both families between two hosts with strict
// reverse-path filtering and transport mode.
func onStrictHosts(t *testing.T, f func(t *testing.T, a, b *host, tr transport)) {
	for _, tr := range []transport{
		{"IPv4", 1, own4A, own4B, "", gcm, ""}, {"IPv6", 1, own6A, own6B, "", gcm, ""},
	} {
		t.Run(tr.name, func(t *testing.T) {
			t.Parallel()
			a, b := newPair(t)
			a.setRPFilters(tr.rpFilter)
			b.setRPFilters(tr.rpFilter)
			startTransport(a, b, tr)
			f(t, a, b, tr)
		})
	}
}

// IKE goes its way in clear while a policy protects all between the hosts; so it
// can make the keys. What comes from another port is sealed.
func TestIKEKeepsItsRoute(t *testing.T) {
	onStrictHosts(t, func(t *testing.T, a, b *host, tr transport) {
		for _, c := range []struct {
			port  string
			clear bool
		}{{"500", true}, {"501", false}} {
			wire := listen(t, a)
			if !askPorts(t, a, b, tr.a, tr.b, c.port, c.port, patience) || !askPorts(t, b, a, tr.b, tr.a, c.port, c.port, patience) {
				t.Errorf("no answer on port %s; logs:\n%s\n%s", c.port, a.log, b.log)
			}
			sealed, ike := 0, 0
			for _, f := range wire.stop() {
				e, other := dissect(f)
				switch {
				case e != nil:
					sealed++
				case isIKE(f):
					ike++
				case other != "":
					t.Errorf("in clear on the wire: %s", other)
				}
			}
			if want := 4; c.clear && (ike != want || sealed != 0) || !c.clear && (ike != 0 || sealed != want) {
				t.Errorf("port %s: %d datagrams of IKE and %d of ESP on the wire", c.port, ike, sealed)
			}
		}
	})
}

// Who asks port 500 from a port of his own is sealed, and the answer, which comes
// from there, is in clear.
func TestAskIKEPort(t *testing.T) {
	onStrictHosts(t, func(t *testing.T, a, b *host, tr transport) {
		if !askPort(t, a, b, tr.a, tr.b, "500", patience) || !askPort(t, b, a, tr.b, tr.a, "500", patience) {
			t.Errorf("no answer; logs:\n%s\n%s", a.log, b.log)
		}
	})
}

// isIKE tells whether a frame is a datagram from port 500 to 500, in either family.
func isIKE(frame []byte) bool {
	const eth, ports = 14, 500<<16 | 500
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		return frame[eth+9] == unix.IPPROTO_UDP && binary.BigEndian.Uint32(frame[eth+20:]) == ports
	case unix.ETH_P_IPV6:
		return frame[eth+6] == unix.IPPROTO_UDP && binary.BigEndian.Uint32(frame[eth+40:]) == ports
	}
	return false
}

// Strict hosts are strict again after a kill, a start and a stop; and while ipsecd
// runs, whoever sets them back.
func TestRPFilterFollows(t *testing.T) {
	a, b := newPair(t)
	tr := transport{"", 1, own4A, own4B, "", gcm, ""}
	a.setRPFilter(wireName, 1)
	before := a.network()
	startTransport(a, b, tr)
	is := func(value string) func() bool {
		return func() bool { return a.rpFilter(wireName) == value }
	}
	a.eventually("loose", is("2"))
	a.setRPFilter(wireName, 1)
	a.eventually("loose again", is("2"))
	a.mustSetkey("-F", "-P")
	a.eventually("strict without policies", is("1"))
	a.mustSetkey("-f", a.file("setkey.conf", tr.script("A")))
	if !is("2")() {
		t.Error("strict though its neighbour is protected again")
	}
	a.kill()
	a.start("-f", a.file("setkey.conf", tr.script("A")))
	b.mustSetkey("-f", b.file("setkey.conf", tr.script("B"))) // a new window for new numbers
	if !ask(t, a, b, tr.a, tr.b, patience) {
		t.Error("no answer after the restart")
	}
	a.stop()
	if after := a.network(); after != before {
		t.Errorf("the network is not what it was:\n%s\nbut:\n%s", before, after)
	}
	if n := strings.Count(a.log.String(), "reverse-path"); n != 0 {
		t.Errorf("the second start says what it did not do:\n%s", a.log)
	}
}

// Tunnels of one family in the other.
func TestMixedFamilies(t *testing.T) {
	mixed := []tunnel{
		{"4in6 raw gcm", own6A, own6B, "10.1.1.1", "10.2.1.1", "", gcm, 1},
		{"4in6 udp cbc", own6A, own6B, "10.1.2.1", "10.2.2.1", "[4500]", cbc, 2},
		{"6in4 raw cbc", own4A, own4B, "fd00:a:3::1", "fd00:b:3::1", "", cbc, 3},
		{"6in4 udp gcm", own4A, own4B, "fd00:a:4::1", "fd00:b:4::1", "[4500]", gcm, 4},
	}
	a, b := newPair(t)
	wire := listen(t, a)
	startTunnels(a, b, mixed...)
	for _, tun := range mixed {
		t.Run(tun.name, func(t *testing.T) {
			if !ping(t, a, tun.innerA, tun.innerB) || !ping(t, b, tun.innerB, tun.innerA) {
				t.Fatalf("no echo; logs:\n%s\n%s", a.log, b.log)
			}
			transfer(t, a, b, tun.innerA, tun.innerB, many/16, nil)
			transfer(t, b, a, tun.innerB, tun.innerA, many/16, nil)
		})
	}
	seen := map[uint32]bool{}
	for _, e := range wire.onlyESP() {
		seen[e.spi] = true
	}
	if len(seen) != 2*len(mixed) {
		t.Errorf("%d SPIs on the wire, want %d", len(seen), 2*len(mixed))
	}
}
