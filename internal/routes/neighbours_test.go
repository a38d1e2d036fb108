package routes

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// newNeighbours makes a strict host, with its TUN, and another on its wire, who
// have not heard of each other.
func newNeighbours(t *testing.T) (here, peer *host) {
	t.Helper()
	here, peer = newHost(t, "here"), newHost(t, "peer")
	lay(t, here, peer, "wire", "wire", "192.0.2.1/24", "192.0.2.2/24")
	here.tun("ipsec0")
	here.do(func() error { return SetupLink("ipsec0", 1400, nil, 0, 0) })
	here.setRPFilter("wire", 1)
	return here, peer
}

func (h *host) setRPFilter(conf string, value int) {
	h.Helper()
	h.do(func() error { return writeRPFilter(conf, fmt.Sprint(value)) })
}

func (h *host) wantRPFilter(link string, want int) {
	h.Helper()
	h.do(func() error {
		text, err := os.ReadFile(confDir + "/" + link + "/rp_filter")
		if got := strings.TrimSpace(string(text)); got != fmt.Sprint(want) {
			h.Errorf("rp_filter of %s is %s, want %d", link, got, want)
		}
		return err
	})
}

// A strict host answers the ARP request of a neighbour whose address is
// protected, however the filter is set, and has its own setting back at the end.
func TestProtectedNeighbour(t *testing.T) {
	for _, c := range []struct{ all, own, during int }{
		{0, 0, 0}, {0, 1, 2}, {1, 0, 2}, {1, 1, 2}, {2, 0, 0}, {2, 1, 1}, {0, 2, 2}, {1, 2, 2},
	} {
		t.Run(fmt.Sprintf("all %d own %d", c.all, c.own), func(t *testing.T) {
			here, peer := newNeighbours(t)
			here.setRPFilter("all", c.all)
			here.setRPFilter("wire", c.own)
			m := here.start(Config{Link: "ipsec0"})
			here.apply(m, []Route{protected("192.0.2.1/32", "192.0.2.2/32")})
			here.wantRPFilter("wire", c.during)
			rcv := here.rawSocket(unix.IPPROTO_ESP)
			send(t, peer.rawSocket(unix.IPPROTO_ESP), "192.0.2.1", "asked for you")
			wantText(t, rcv, "asked for you")
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			here.wantRPFilter("wire", c.own)
			here.wantRPFilter("all", c.all)
		})
	}
}

// Which links need it: those with a network of their own in the TUN.
func TestWhichLinksAreLoosened(t *testing.T) {
	for _, c := range []struct {
		name    string
		gateway string // on the wire, in no network of its addresses
		protect []Route
		exempt  []string
		want    int
	}{
		{"nothing", "192.0.2.254/32", nil, nil, 1},
		{"behind a router", "192.0.2.254/32", []Route{protected("192.0.2.1/32", "198.51.100.0/24")}, nil, 1},
		{"a neighbour", "192.0.2.254/32", []Route{protected("192.0.2.1/32", "192.0.2.77/32")}, nil, 2},
		{"everything", "192.0.2.254/32", []Route{protected("0.0.0.0/0", "0.0.0.0/0")}, nil, 2},
		{"everything but the wire", "192.0.2.254/32", []Route{protected("0.0.0.0/0", "0.0.0.0/0")}, []string{"192.0.2.0/24"}, 1},
		{"everything but more", "192.0.2.254/32", []Route{protected("0.0.0.0/0", "0.0.0.0/0")}, []string{"192.0.0.0/16"}, 1},
		{"everything but half the wire", "192.0.2.254/32", []Route{protected("0.0.0.0/0", "0.0.0.0/0")}, []string{"192.0.2.0/25"}, 2},
		{"a neighbour of those that are out", "192.0.2.254/32", []Route{protected("0.0.0.0/0", "192.0.2.9/32")}, []string{"192.0.2.0/24"}, 2},
		{"a gateway without a network", "203.0.113.1/32", []Route{protected("0.0.0.0/0", "203.0.113.0/24")}, nil, 2},
		{"IPv6", "192.0.2.254/32", []Route{protected("::/0", "::/0")}, nil, 1},
		{"those around its own address", "192.0.2.254/32", []Route{protected("0.0.0.0/0", "198.18.0.0/24")}, nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			here, _ := newNeighbours(t)
			here.setLink("wire", func(l netlink.Link) error {
				return netlink.AddrAdd(l, &netlink.Addr{IPNet: netlink.NewIPNet(net.IP{198, 18, 0, 7})})
			})
			here.addRoute(unix.RT_TABLE_MAIN, c.gateway, "wire", "")
			here.addRoute(unix.RT_TABLE_MAIN, "198.51.100.0/24", "wire", "192.0.2.254")
			m := here.start(Config{Link: "ipsec0"})
			here.apply(m, c.protect, c.exempt...)
			here.wantRPFilter("wire", c.want)
			here.apply(m, nil)
			here.wantRPFilter("wire", 1)
		})
	}
}

// Changes are followed: addresses, links and names that come and go, and somebody
// who sets the filter.
func TestLoosenedFollows(t *testing.T) {
	here, _ := newNeighbours(t)
	here.link("other")
	here.setRPFilter("other", 1)
	var log bytes.Buffer
	m := here.start(Config{Link: "ipsec0", Log: slog.New(slog.NewTextHandler(&log, nil))})
	neighbour := []Route{protected("192.0.2.1/32", "192.0.2.2/32"), protected("10.7.0.1/32", "10.7.0.0/16")}
	here.apply(m, neighbour)
	here.wantRPFilter("other", 1)
	here.setLink("other", func(l netlink.Link) error {
		if err := netlink.LinkSetARPOn(l); err != nil {
			return err
		}
		addr, err := netlink.ParseAddr("10.7.0.1/24")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(l, addr)
	})
	here.apply(m, neighbour)
	here.wantRPFilter("other", 2)

	for range 3 {
		here.setRPFilter("wire", 1)
		if err := m.Repair(); err != nil {
			t.Error(err)
		}
		here.wantRPFilter("wire", 2)
	}
	if n := strings.Count(log.String(), "link=wire"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}

	here.setRPFilter("wire", 1)
	if err := m.Repair(); err != nil {
		t.Error(err)
	}
	here.wantRPFilter("wire", 2)
	here.setRPFilter("wire", 1)
	here.apply(m, neighbour)
	here.wantRPFilter("wire", 2)
	here.setRPFilter("other", 0) // no longer ours to give back
	here.apply(m, neighbour)
	here.wantRPFilter("other", 0)

	here.setLink("wire", netlink.LinkSetDown)
	here.setLink("wire", func(l netlink.Link) error { return netlink.LinkSetName(l, "cable") })
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	here.wantRPFilter("cable", 1)
	here.wantRPFilter("other", 0)
	if n := strings.Count(log.String(), "net.ipv4.conf.other.rp_filter"); n != 1 {
		t.Errorf("%d lines about other, want 1:\n%s", n, &log)
	}
}

// Close does not undo what somebody set a moment before.
func TestSetBeforeClose(t *testing.T) {
	here, _ := newNeighbours(t)
	m := here.start(Config{Link: "ipsec0"})
	here.apply(m, []Route{protected("192.0.2.1/32", "192.0.2.2/32")})
	here.setRPFilter("wire", 0)
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	here.wantRPFilter("wire", 0)
}

// A link that does not speak ARP has nobody to answer.
func TestNoARPStaysStrict(t *testing.T) {
	here := newHost(t, "here")
	here.link("silent", "10.7.0.1/24") // a TUN
	here.setRPFilter("silent", 1)
	here.tun("ipsec0")
	here.do(func() error { return SetupLink("ipsec0", 1400, nil, 0, 0) })
	m := here.start(Config{Link: "ipsec0"})
	here.apply(m, []Route{protected("10.7.0.1/32", "10.7.0.0/16")})
	here.wantRPFilter("silent", 1)
}

// A link that is gone does not keep Close from the rest.
func TestLoosenedLinkGone(t *testing.T) {
	here, _ := newNeighbours(t)
	m := here.start(Config{Link: "ipsec0"})
	here.apply(m, []Route{protected("192.0.2.1/32", "192.0.2.2/32")})
	here.setLink("wire", netlink.LinkDel)
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// The instance after one that was killed gives back what that one changed; in
// another network namespace the file means nothing.
func TestLoosenedSurvivesKill(t *testing.T) {
	here, _ := newNeighbours(t)
	cfg := Config{Link: "ipsec0", Guard: true, State: filepath.Join(t.TempDir(), "rp_filter")}
	neighbour := []Route{protected("192.0.2.1/32", "192.0.2.2/32")}
	m := here.start(cfg)
	here.apply(m, neighbour)
	kill(t, m)
	here.wantRPFilter("wire", 2)

	elsewhere, _ := newNeighbours(t)
	elsewhere.setRPFilter("wire", 2)
	if err := elsewhere.start(cfg).Close(); err != nil {
		t.Error(err)
	}
	elsewhere.wantRPFilter("wire", 2)

	m = here.start(cfg)
	if err := m.Abort(); err != nil {
		t.Error(err)
	}
	here.wantRPFilter("wire", 2) // a start that failed takes nothing away
	m = here.start(cfg)
	here.apply(m, neighbour)
	here.wantRPFilter("wire", 2)
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	here.wantRPFilter("wire", 1)
	if _, err := os.Stat(cfg.State); !os.IsNotExist(err) {
		t.Errorf("the state is left: %v", err)
	}
}

func TestStateErrors(t *testing.T) {
	here, _ := newNeighbours(t)
	path := filepath.Join(t.TempDir(), "rp_filter")
	var owner string
	here.do(func() (err error) {
		owner, err = stateOwner()
		return err
	})
	if err := os.WriteFile(path, []byte(owner+"\nwire\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	here.do(func() error {
		_, err := New(Config{Link: "ipsec0", Mark: testMark, State: path})
		if err == nil || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("error %v", err)
		}
		return nil
	})
}

// Where /proc/sys cannot be written one line says what to run, and routes are made
// all the same.
func TestReadOnlyProcSys(t *testing.T) {
	here, _ := newNeighbours(t)
	var log bytes.Buffer
	here.do(procSysReadOnly)
	m := here.start(Config{Link: "ipsec0", Log: slog.New(slog.NewTextHandler(&log, nil))})
	for range 2 {
		here.apply(m, []Route{protected("192.0.2.1/32", "192.0.2.2/32")})
	}
	here.wantRPFilter("wire", 1)
	here.wantTable("192.0.2.2/32 dev ipsec0 src 192.0.2.1")
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "sysctl -w net.ipv4.conf.wire.rp_filter=2") {
		t.Errorf("logged:\n%s", got)
	}
}

// procSysReadOnly makes /proc/sys of the calling thread what it is in a container.
func procSysReadOnly() error {
	const flags = unix.MS_BIND | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	return errors.Join(
		unix.Unshare(unix.CLONE_NEWNS),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("/proc/sys", "/proc/sys", "", flags, ""),
		unix.Mount("", "/proc/sys", "", flags|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
}

// The TUN is set up all the same where it has to stay strict.
func TestStrictTUN(t *testing.T) {
	here := newHost(t, "here")
	here.tun("ipsec.0")
	here.setRPFilter("all", 1)
	here.do(func() error {
		if err := procSysReadOnly(); err != nil {
			return err
		}
		err := SetupLink("ipsec.0", 1400, prefixes("10.1.1.1/24"), 0, 0)
		if !errors.Is(err, ErrStrict) || !strings.HasSuffix(err.Error(), "run: sysctl -w net.ipv4.conf.ipsec/0.rp_filter=2") {
			t.Errorf("error %v", err)
		}
		return nil
	})
	here.wantWay("10.1.1.1", 0, "lo 10.1.1.1")
}

// The routes that count are those of the table, the longest prefix first.
func TestEntersTUN(t *testing.T) {
	p := netip.MustParsePrefix
	want := map[place]target{
		{p("10.0.0.0/8"), metric}:      {kind: unix.RTN_UNICAST},
		{p("10.0.0.0/8"), guardMetric}: {kind: unix.RTN_UNREACHABLE},
		{p("10.1.0.0/16"), metric}:     {kind: unix.RTN_THROW},
		{p("10.1.2.0/24"), metric}:     {kind: unix.RTN_UNICAST},
		{p("10.1.2.4/32"), metric}:     {kind: unix.RTN_THROW},
		{p("10.128.0.0/9"), metric}:    {kind: unix.RTN_THROW},
	}
	for network, enters := range map[string]bool{
		"10.9.0.0/24": true, "10.1.0.0/24": false, "10.1.0.0/16": true, "10.1.2.0/24": true, "10.1.2.4/32": false,
		"10.1.2.5/32": true, "10.1.3.0/24": false, "10.200.0.0/24": false, "192.0.2.0/24": false, "0.0.0.0/0": true,
	} {
		if got := entersTUN(want, p(network)); got != enters {
			t.Errorf("%s: %v, want %v", network, got, enters)
		}
	}
}
