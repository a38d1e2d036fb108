package routes

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ipsecd/internal/netns"
)

func TestCheckRPFilter(t *testing.T) {
	h := newHost(t, "host")
	h.tun("a")
	h.tun("b")
	steps := []struct {
		conf, value string
		want        []string
	}{
		{"all", "0", nil},
		{"a", "1", []string{"a"}},
		{"all", "1", []string{"a", "b"}},
		{"b", "2", []string{"a"}},
		{"all", "2", nil},
	}
	h.do(func() error {
		for _, name := range []string{"a", "b"} {
			if err := writeRPFilter(name, "0"); err != nil {
				return err
			}
		}
		for _, s := range steps {
			if err := writeRPFilter(s.conf, s.value); err != nil {
				return err
			}
			got, err := CheckRPFilter()
			if err != nil {
				return err
			}
			slices.Sort(got)
			if !slices.Equal(got, s.want) {
				t.Errorf("after %s=%s: %v, want %v", s.conf, s.value, got, s.want)
			}
		}
		return nil
	})
}

func writeRPFilter(conf, value string) error {
	return os.WriteFile(confDir+"/"+conf+"/rp_filter", []byte(value), 0)
}

// A host that filters strictly protects what it says to a peer behind a router:
// the peer's address leads to the TUN, yet comes in by the wire. Sealed packets and
// IKE pass, thanks to the rules, and the wire stays strict.
func TestStrictRPFilter(t *testing.T) {
	here, router, peer := newHost(t, "here"), newHost(t, "router"), newHost(t, "peer")
	lay(t, here, router, "wire", "left", "192.0.2.1/24", "192.0.2.2/24")
	lay(t, router, peer, "right", "wire", "198.51.100.1/24", "198.51.100.2/24")
	router.do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	peer.do(func() error { return addDefaults("wire", "198.51.100.1") })
	here.tun("ipsec0")
	here.do(func() error {
		for _, conf := range []string{"all", "wire"} {
			if err := writeRPFilter(conf, "1"); err != nil {
				return err
			}
		}
		return SetupLink("ipsec0", 1400, nil, 0, 0)
	})
	here.do(func() error { return addDefaults("wire", "192.0.2.2") })
	m := here.start(Config{Link: "ipsec0", NATTPort: 4500})
	here.apply(m, []Route{protected("192.0.2.1/32", "198.51.100.2/32")})
	here.wantRPFilter("wire", 1)

	for _, c := range []struct {
		proto int
		port  uint16
	}{
		{unix.IPPROTO_ESP, 0}, {unix.IPPROTO_AH, 0}, {unix.IPPROTO_COMP, 0},
		{unix.IPPROTO_UDP, 4500}, {unix.IPPROTO_UDP, 500},
	} {
		t.Run(fmt.Sprintf("protocol %d port %d", c.proto, c.port), func(t *testing.T) {
			rcv, snd := here.rawSocket(c.proto), peer.rawSocket(c.proto)
			sendPort(t, snd, c.port, "192.0.2.1", "with the rule")
			if got := receive(t, rcv); !strings.HasSuffix(got, "with the rule") {
				t.Fatalf("received %q", got)
			}
			before := here.reversePathDrops()
			here.withoutRule(c.proto, c.port)
			sendPort(t, snd, c.port, "192.0.2.1", "without the rule")
			here.awaitReversePathDrop(before)
			n, _, err := unix.Recvfrom(rcv, make([]byte, 100), unix.MSG_DONTWAIT)
			if err != unix.EAGAIN {
				t.Errorf("%d octets, error %v: the packet came through without the rule", n, err)
			}
		})
	}
}

// lay lays a wire between two hosts.
func lay(t *testing.T, a, b *host, nameA, nameB, addrA, addrB string) {
	t.Helper()
	if err := netns.Veth(a.ns, b.ns, nameA, nameB, prefixes(addrA), prefixes(addrB), 1500); err != nil {
		t.Fatal(err)
	}
}

// withoutRule takes away the rule by this protocol and source port, 0 for none.
func (h *host) withoutRule(proto int, port uint16) {
	h.Helper()
	h.do(func() error {
		rules, err := netlink.RuleList(netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for i := range rules {
			if rules[i].IPProto == proto && ruleOf(&rules[i]).srcPort == port {
				return netlink.RuleDel(&rules[i])
			}
		}
		return fmt.Errorf("there is no rule by protocol %d and port %d", proto, port)
	})
}

// awaitReversePathDrop returns when the kernel has dropped a packet more.
func (h *host) awaitReversePathDrop(before string) {
	h.Helper()
	for range 10_000 {
		if h.reversePathDrops() != before {
			return
		}
		time.Sleep(time.Millisecond)
	}
	h.Fatal("no packet failed reverse-path filtering")
}

// reversePathDrops reads the kernel's counter of them.
func (h *host) reversePathDrops() (count string) {
	h.Helper()
	h.do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/netstat")
		if err != nil {
			return err
		}
		lines := strings.Split(string(text), "\n")
		names, values := strings.Fields(lines[0]), strings.Fields(lines[1])
		i := slices.Index(names, "IPReversePathFilter")
		if i < 0 {
			return fmt.Errorf("no such counter in %q", lines[0])
		}
		count = values[i]
		return nil
	})
	return count
}
