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
	return os.WriteFile(rpFilterPath(conf), []byte(value), 0o644)
}

// Two hosts on one wire protect what they say to each other, and the first
// filters strictly: the peer's address leads to the TUN, yet comes in by the
// wire. Sealed packets pass, thanks to the rules by protocol.
func TestStrictRPFilter(t *testing.T) {
	here, peer := newHost(t, "here"), newHost(t, "peer")
	err := netns.Veth(here.ns, peer.ns, "wire", "wire", prefixes("192.0.2.1/24"), prefixes("192.0.2.2/24"), 1500)
	if err != nil {
		t.Fatal(err)
	}
	acquaint(here, peer)
	here.tun("ipsec0")
	here.do(func() error {
		for _, conf := range []string{"all", "wire"} {
			if err := writeRPFilter(conf, "1"); err != nil {
				return err
			}
		}
		return SetupLink("ipsec0", 1400, nil, 0, 0)
	})
	m := here.start(Config{Link: "ipsec0", NATTPort: 4500})
	here.apply(m, []Route{protected("192.0.2.1/32", "192.0.2.2/32")})

	for _, proto := range []int{unix.IPPROTO_ESP, unix.IPPROTO_AH, unix.IPPROTO_COMP, unix.IPPROTO_UDP} {
		t.Run(fmt.Sprint("protocol ", proto), func(t *testing.T) {
			rcv, snd := here.rawSocket(proto), peer.rawSocket(proto)
			send(t, snd, "192.0.2.1", "with the rule")
			if got := receive(t, rcv); !strings.HasSuffix(got, "with the rule") {
				t.Fatalf("received %q", got)
			}
			before := here.reversePathDrops()
			here.withoutRule(proto)
			send(t, snd, "192.0.2.1", "without the rule")
			here.awaitReversePathDrop(before)
			n, _, err := unix.Recvfrom(rcv, make([]byte, 100), unix.MSG_DONTWAIT)
			if err != unix.EAGAIN {
				t.Errorf("%d octets, error %v: the packet came through without the rule", n, err)
			}
		})
	}
}

// acquaint tells two hosts each other's link address: strict filtering refuses
// to answer an ARP request that comes from a protected address.
func acquaint(a, b *host) {
	a.Helper()
	for _, pair := range [][2]*host{{a, b}, {b, a}} {
		var neigh netlink.Neigh
		pair[1].do(func() error {
			link, err := netlink.LinkByName("wire")
			if err != nil {
				return err
			}
			addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
			if err != nil {
				return err
			}
			neigh.IP, neigh.HardwareAddr = addrs[0].IP, link.Attrs().HardwareAddr
			return nil
		})
		pair[0].do(func() error {
			link, err := netlink.LinkByName("wire")
			if err != nil {
				return err
			}
			neigh.LinkIndex, neigh.State = link.Attrs().Index, netlink.NUD_PERMANENT
			return netlink.NeighSet(&neigh)
		})
	}
}

// withoutRule takes away the first rule by this protocol.
func (h *host) withoutRule(proto int) {
	h.Helper()
	h.do(func() error {
		rules, err := netlink.RuleList(netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for i := range rules {
			if rules[i].IPProto == proto {
				return netlink.RuleDel(&rules[i])
			}
		}
		return fmt.Errorf("there is no rule by protocol %d", proto)
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
