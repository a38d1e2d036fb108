package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// tunnel is one pair of SAs and the policies of a host for it.
type tunnel struct {
	name           string
	outerA, outerB string
	innerA, innerB string // addresses, which the TUNs get
	port           string // "[4500]" for UDP encapsulation
	suite          string
	n              int // SPIs and reqid
}

const (
	gcm  = "-E aes-gcm-16 0x6b87c452e0602b13e1925c2962e635ad7b9d3f%02x"
	cbc  = "-E aes-cbc 0x73bb90ac97e947c7bbc0f55c6b3e17%02x -A hmac-sha2-256 0x6734dc7dbbcdb6256bbac5ea53d3a259aca9e3e10562873837e36c56dc8ec1be"
	many = 64 << 20 // octets of a transfer
)

var tunnels = []tunnel{
	{"4in4 raw gcm", "198.51.100.1", "198.51.100.2", "10.1.1.1", "10.2.1.1", "", gcm, 1},
	{"4in4 raw cbc", "198.51.100.1", "198.51.100.2", "10.1.2.1", "10.2.2.1", "", cbc, 2},
	{"4in4 udp gcm", "198.51.100.1", "198.51.100.2", "10.1.3.1", "10.2.3.1", "[4500]", gcm, 3},
	{"4in4 udp cbc", "198.51.100.1", "198.51.100.2", "10.1.4.1", "10.2.4.1", "[4500]", cbc, 4},
	{"6in6 raw gcm", "fd00:1::1", "fd00:1::2", "fd00:a:5::1", "fd00:b:5::1", "", gcm, 5},
	{"6in6 raw cbc", "fd00:1::1", "fd00:1::2", "fd00:a:6::1", "fd00:b:6::1", "", cbc, 6},
	{"6in6 udp gcm", "fd00:1::1", "fd00:1::2", "fd00:a:7::1", "fd00:b:7::1", "[4500]", gcm, 7},
	{"6in6 udp cbc", "fd00:1::1", "fd00:1::2", "fd00:a:8::1", "fd00:b:8::1", "[4500]", cbc, 8},
}

// script is the setkey file of one end. With -r 32 the window is 256 packets.
func script(end string, ts ...tunnel) string {
	var b strings.Builder
	b.WriteString("flush;\nspdflush;\n")
	for _, t := range ts {
		proto := "esp"
		if t.port != "" {
			proto = "esp-udp"
		}
		fmt.Fprintf(&b, "add %s%s %s%s %s %#x -m tunnel -u %d -r 32 %s;\n", t.outerA, t.port, t.outerB, t.port, proto, 0xa000+t.n, t.n, fmt.Sprintf(t.suite, t.n))
		fmt.Fprintf(&b, "add %s%s %s%s %s %#x -m tunnel -u %d -r 32 %s;\n", t.outerB, t.port, t.outerA, t.port, proto, 0xb000+t.n, t.n, fmt.Sprintf(t.suite, t.n+128))
		b.WriteString(policies(end, t))
	}
	return b.String()
}

// policies is what protects a tunnel's inner addresses.
func policies(end string, t tunnel) string {
	out, in := "out", "in"
	if end == "B" {
		out, in = in, out
	}
	return fmt.Sprintf("spdadd %s %s any -P %s ipsec esp/tunnel/%s-%s/unique:%d;\n", t.innerA, t.innerB, out, t.outerA, t.outerB, t.n) +
		fmt.Sprintf("spdadd %s %s any -P %s ipsec esp/tunnel/%s-%s/unique:%d;\n", t.innerB, t.innerA, in, t.outerB, t.outerA, t.n)
}

// addrs are the --addr flags of one end.
func addrs(end string, ts ...tunnel) (flags []string) {
	for _, t := range ts {
		a := t.innerA
		if end == "B" {
			a = t.innerB
		}
		flags = append(flags, "--addr", a)
	}
	return flags
}

// startTunnels starts an ipsecd on both hosts.
func startTunnels(a, b *host, ts ...tunnel) (fileA, fileB string) {
	a.Helper()
	fileA, fileB = a.file("setkey.conf", script("A", ts...)), b.file("setkey.conf", script("B", ts...))
	a.start(append(addrs("A", ts...), "-f", fileA)...)
	b.start(append(addrs("B", ts...), "-f", fileB)...)
	return fileA, fileB
}

func TestTunnels(t *testing.T) {
	a, b := newPair(t)
	wire := listen(t, a)
	startTunnels(a, b, tunnels...)
	for _, tun := range tunnels {
		t.Run(tun.name, func(t *testing.T) {
			if !ask(t, a, b, tun.innerA, tun.innerB, patience) || !ask(t, b, a, tun.innerB, tun.innerA, patience) {
				t.Fatalf("no answer; logs:\n%s\n%s", a.log, b.log)
			}
			transfer(t, a, b, tun.innerA, tun.innerB, many, nil)
			transfer(t, b, a, tun.innerB, tun.innerA, many/8, nil)
		})
	}
	packets := wire.onlyESP()
	if a.stop() != 0 || b.stop() != 0 {
		t.Errorf("ipsecd did not end well; logs:\n%s\n%s", a.log, b.log)
	}
	seen := map[uint32]bool{}
	for _, e := range packets {
		if encap := (e.spi-1)&3 >= 2; e.udp != encap {
			t.Fatalf("SPI %#x in UDP: %v", e.spi, e.udp)
		}
		seen[e.spi] = true
	}
	if len(seen) != 2*len(tunnels) {
		t.Errorf("%d SPIs on the wire, want %d", len(seen), 2*len(tunnels))
	}
}

// Policies none and discard, beside one that protects the rest of a network.
func TestNoneAndDiscard(t *testing.T) {
	a, b := newPair(t)
	const common = `
add 198.51.100.1 198.51.100.2 esp 0xa001 -m tunnel -r 32 -E aes-gcm-16 0x6b87c452e0602b13e1925c2962e635ad7b9d3f01;
add 198.51.100.2 198.51.100.1 esp 0xb001 -m tunnel -r 32 -E aes-gcm-16 0x6b87c452e0602b13e1925c2962e635ad7b9d3f02;
`
	// The wire's own network is protected but for one port, and one is shut.
	a.start("-f", a.file("a.conf", common+`
spdadd 198.51.100.1 198.51.100.2[2222] udp -P out none;
spdadd 198.51.100.1 198.51.100.2[3333] udp -P out discard;
spdadd 198.51.100.1 198.51.100.2 udp -P out ipsec esp/tunnel/198.51.100.1-198.51.100.2/require;
spdadd 198.51.100.2 198.51.100.1 udp -P in ipsec esp/tunnel/198.51.100.2-198.51.100.1/require;
`))
	b.start("-f", b.file("b.conf", common+`
spdadd 198.51.100.2[2222] 198.51.100.1 udp -P out none;
spdadd 198.51.100.2 198.51.100.1 udp -P out ipsec esp/tunnel/198.51.100.2-198.51.100.1/require;
spdadd 198.51.100.1 198.51.100.2[5555] udp -P in discard;
spdadd 198.51.100.1 198.51.100.2 udp -P in ipsec esp/tunnel/198.51.100.1-198.51.100.2/require;
`))
	for _, c := range []struct {
		port                 string
		answer, inESP, clear bool
	}{
		{"1111", true, true, false},
		{"2222", true, false, true},
		{"3333", false, false, false},
		{"5555", false, true, false}, // sealed, then discarded by the other side
	} {
		t.Run(c.port, func(t *testing.T) {
			wire := listen(t, a)
			wait := patience
			if !c.answer {
				wait = 500 * time.Millisecond
			}
			if got := askPort(t, a, b, "198.51.100.1", "198.51.100.2", c.port, wait); got != c.answer {
				t.Errorf("answered: %v", got)
			}
			var inESP, clear bool
			for _, f := range wire.stop() {
				e, other := dissect(f)
				inESP = inESP || e != nil
				clear = clear || other != ""
			}
			if inESP != c.inESP || clear != c.clear {
				t.Errorf("on the wire: ESP %v, in clear %v; want %v, %v", inESP, clear, c.inESP, c.clear)
			}
		})
	}
	a.stop()
	b.stop()
	if !strings.Contains(a.log.String(), "reason=policy-discard packets=1") {
		t.Errorf("host A does not say what it dropped:\n%s", a.log)
	}
	if !strings.Contains(b.log.String(), "reason=policy-discard packets=1") {
		t.Errorf("host B does not say what it dropped:\n%s", b.log)
	}
}

// setkey -F, then the same file again, on one side and on both, in the middle
// of a transfer.
func TestReloadUnderTransfer(t *testing.T) {
	for _, tun := range []tunnel{tunnels[0], tunnels[2], tunnels[5]} {
		t.Run(tun.name, func(t *testing.T) {
			a, b := newPair(t)
			wire := listen(t, a)
			fileA, fileB := startTunnels(a, b, tun)
			transfer(t, a, b, tun.innerA, tun.innerB, many, func(part int) {
				switch part {
				case 2, 5:
					a.mustSetkey("-F")
					a.mustSetkey("-f", fileA)
				case 8:
					b.mustSetkey("-F")
					b.mustSetkey("-f", fileB)
				case 11:
					a.mustSetkey("-F")
					b.mustSetkey("-F")
					a.mustSetkey("-f", fileA)
					b.mustSetkey("-f", fileB)
				}
			})
			wire.onlyESP()
		})
	}
}

// A protected network with a port that passes as it is: what the TUN hands over
// in trains and with half a checksum must be split and finished before it goes
// on by the real route.
func TestBulkInClear(t *testing.T) {
	for name, c := range map[string]struct{ a, b, everything string }{
		"IPv4": {"198.51.100.1", "198.51.100.2", "0.0.0.0/0"},
		"IPv6": {"fd00:1::1", "fd00:1::2", "fd00:1::/64"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newPair(t)
			a.start("-f", a.file("a.conf", fmt.Sprintf(`
spdadd %[1]s %[2]s tcp -P out none;
spdadd %[1]s %[3]s any -P out ipsec esp/tunnel/%[1]s-%[2]s/require;
`, c.a, c.b, c.everything)))
			transfer(t, a, b, c.a, c.b, many, nil)
			if ask(t, a, b, c.a, c.b, 300*time.Millisecond) {
				t.Error("UDP has no SA and is answered all the same")
			}
			a.stop()
			passed := regexp.MustCompile(`passed as they were.*packets=(\d+)`).FindStringSubmatch(a.log.String())
			if passed == nil || len(passed[1]) < 5 {
				t.Errorf("the transfer did not pass through the TUN:\n%s", a.log)
			}
		})
	}
}
