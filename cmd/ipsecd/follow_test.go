package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ipsecd/control"
	"ipsecd/internal/routes"
	"ipsecd/sad"
	"ipsecd/spd"
)

// follower is a hostNetwork without a host that follows what is loaded.
type follower struct {
	*testing.T
	*hostNetwork
	sas      *sad.DB
	policies *spd.DB
	control  *control.Engine

	mtus    map[string]int // of paths, 0: of the loopback device
	asked   int            // for a path
	applied int
	mtu4s   []int // with which
	refuse  error // of Apply
}

// noLink is a TUN that is not there, so that its MTU cannot be set.
const noLink = "no-such-link"

func newFollower(t *testing.T) *follower {
	f := &follower{T: t, sas: sad.New(), policies: spd.New(), mtus: map[string]int{}}
	f.hostNetwork = &hostNetwork{
		tun: noLink, mtu: defaultMTU, fits: defaultMTU, log: slog.New(slog.DiscardHandler), routes: f,
		askMTU: func(dst netip.Addr) (int, error) {
			f.asked++
			if mtu := f.mtus[dst.String()]; mtu != 0 {
				return mtu, nil
			}
			return maxMTU + 1, nil
		},
	}
	f.control = control.New(control.Config{SAD: f.sas, SPD: f.policies, NATTPort: 4500,
		OnChange: func() error { return f.followChange(f.policies, f.sas) }})
	return f
}

func (f *follower) Apply(_ []routes.Route, _ []netip.Prefix, mtu4 int) error {
	f.applied++
	f.mtu4s = append(f.mtu4s, mtu4)
	return f.refuse
}

func (f *follower) Repair() error { return nil }
func (f *follower) Close() error  { return nil }
func (f *follower) Abort() error  { return nil }

func (f *follower) load(script string) error { return f.control.Load("script", []byte(script)) }

func (f *follower) mustLoad(script string) {
	f.Helper()
	if err := f.load(script); err != nil {
		f.Fatal(err)
	}
}

// add is the statement that adds an SA to 192.0.2.PEER.
func add(peer, spi int) string {
	return fmt.Sprintf("add 198.51.100.1 192.0.2.%d esp 0x%x -m tunnel -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f%08x;\n",
		peer, spi, spi)
}

func remove(peer, spi int) string {
	return fmt.Sprintf("delete 198.51.100.1 192.0.2.%d esp 0x%x;\n", peer, spi)
}

func protect(net, dir string) string {
	return fmt.Sprintf("spdadd 10.1.0.0/16 %s any -P %s ipsec esp/tunnel/198.51.100.1-192.0.2.1/require;\n", net, dir)
}

// A change costs what changed: SAs apply no routes and ask for the paths to their
// own new peers, policies apply routes once and ask for none.
func TestFollowChange(t *testing.T) {
	f := newFollower(t)
	f.mustLoad(add(1, 0x1001) + add(1, 0x1002) + add(2, 0x1003) + add(3, 0x1004) + protect("10.2.0.0/16", "out"))
	for _, step := range []struct {
		name, script   string
		asked, applied int
	}{
		{"SA to a known peer", add(1, 0x1005), 0, 0},
		{"SA to a new peer", add(4, 0x1006), 1, 0},
		{"SAs to two new peers and a known one", add(5, 0x1007) + add(5, 0x1008) + add(6, 0x1009) + add(1, 0x100a), 2, 0},
		{"one of two SAs goes", remove(5, 0x1007), 0, 0},
		{"the last SA goes", remove(6, 0x1009), 0, 0},
		{"and comes back", add(6, 0x1009), 1, 0},
		{"inbound policy", protect("10.3.0.0/16", "in"), 0, 0},
		{"outbound policy", protect("10.4.0.0/16", "out"), 0, 1},
		{"two of them", protect("10.5.0.0/16", "out") + protect("10.6.0.0/16", "out"), 0, 1},
		{"policy and SA", protect("10.7.0.0/16", "out") + add(7, 0x100b), 1, 1},
		{"policies go", "spdflush;", 0, 1},
		{"SAs go", "flush;", 0, 0},
		{"SAs come back", add(1, 0x1001) + add(2, 0x1003), 2, 0},
	} {
		f.asked, f.applied = 0, 0
		f.mustLoad(step.script)
		if f.asked != step.asked || f.applied != step.applied {
			t.Errorf("%s: asked for %d paths, applied routes %d times; want %d, %d",
				step.name, f.asked, f.applied, step.asked, step.applied)
		}
	}
	f.asked, f.applied = 0, 0
	if err := f.follow(f.policies, f.sas); err != nil || f.asked != 2 || f.applied != 1 {
		t.Errorf("all of it: %v, asked for %d paths, applied routes %d times", err, f.asked, f.applied)
	}
}

// Who changes something hears of the trouble that it made, and of no other.
func TestFollowTrouble(t *testing.T) {
	f := newFollower(t)
	hears := func(what, script, want string) {
		t.Helper()
		err := f.load(script)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	f.refuse = errors.New("no room")
	hears("policy", protect("10.2.0.0/16", "out"), "no room")
	f.mtus["192.0.2.1"] = 1400
	hears("SA on a smaller path", add(1, 0x1001), noLink)
	f.mtus["192.0.2.1"], f.mtus["192.0.2.2"] = 0, 0
	hears("another SA", add(2, 0x1002), "")
	hears("another policy", protect("10.3.0.0/16", "out"), "")
	f.refuse = errors.New("no memory")
	hears("policy, and other trouble", protect("10.4.0.0/16", "out"), "no memory")
	f.refuse = nil
	hears("SA", remove(2, 0x1002), "")
	if !strings.Contains(f.trouble, "no memory") {
		t.Errorf("an SA ended the trouble of routes that nobody applied: %q", f.trouble)
	}
	if err := f.follow(f.policies, f.sas); err != nil || f.trouble != "" {
		t.Errorf("in the end %v, %q", err, f.trouble)
	}
}

// The least path of the loaded SAs counts: one that changes from the next look at
// the whole host, one that goes with its last SA.
func TestInnerMTU(t *testing.T) {
	const overhead = 1500 - 1446 // of ESP in a tunnel, by AES-GCM over IPv4
	f := newFollower(t)
	f.o.mtu = defaultMTU // so that only the test looks
	for peer := range 3 {
		f.mtus[fmt.Sprint("192.0.2.", peer)] = 1500 - 100*peer // 192.0.2.3 is at home
	}
	want := func(when string, mtu int) {
		t.Helper()
		if got := f.innerMTU(f.sas); got != mtu {
			t.Errorf("%s: %d, want %d", when, got, mtu)
		}
	}
	want("without SAs", 0)
	f.mustLoad(add(3, 0x1003))
	want("with one to this host", 0)
	f.mustLoad(add(0, 0x1000) + add(1, 0x1001))
	want("with two peers", 1400-overhead)
	f.mustLoad(add(2, 0x1002))
	want("with a third", 1300-overhead)
	f.mtus["192.0.2.0"] = 1200
	want("with a path that nobody looked at", 1300-overhead)
	f.mustLoad(remove(2, 0x1002))
	want("without the third", 1400-overhead)
	if _, ok := f.paths[netip.MustParseAddr("192.0.2.2")]; ok || len(f.paths) != 3 {
		t.Errorf("paths are %v", f.paths)
	}
	f.follow(f.policies, f.sas)
	want("after a look at all", 1200-overhead)
	f.mtus["192.0.2.0"] = 1500
	f.follow(f.policies, f.sas)
	want("after the next", 1400-overhead)
}

// A policy that brings IPv6 raises a small MTU, with or without SAs.
func TestLeastMTU(t *testing.T) {
	f := newFollower(t)
	f.mtu, f.fits = 1000, 1000
	f.mustLoad(protect("10.2.0.0/16", "out"))
	err := f.load("spdadd fd00:1::/64 fd00:2::/64 any -P out discard;")
	if err == nil || !strings.Contains(err.Error(), noLink) {
		t.Errorf("the MTU was left at %d: %v", f.mtu, err)
	}
}

// What fits only IPv4 is for IPv4's routes, which are applied when that changes and
// not else; and what it means for IPv6 is said once for a peer.
func TestNarrowPath(t *testing.T) {
	const overhead = 1500 - 1446
	f := newFollower(t)
	var logged strings.Builder
	f.log = slog.New(slog.NewTextHandler(&logged, nil))
	f.mtu = minMTUIPv6 // as it stays
	f.mtus["192.0.2.1"], f.mtus["192.0.2.2"], f.mtus["192.0.2.3"] = 1300, 1300, 1200
	f.mustLoad("spdadd fd00:1::/64 fd00:2::/64 any -P out ipsec esp/tunnel/198.51.100.1-192.0.2.1/require;" + add(1, 0x1001))
	for _, step := range []struct {
		name, script string
		applied      []int
		warned       int
	}{
		{"narrow", "", []int{1300 - overhead}, 1},
		{"one more to the peer", add(1, 0x1002), nil, 1},
		{"one to another peer that carries no IPv6", add(2, 0x1003), nil, 1},
		{"a narrower one that carries none", add(3, 0x1004), []int{1200 - overhead}, 1},
		{"which goes", remove(3, 0x1004), []int{1300 - overhead}, 1},
		{"all go", "flush;", nil, 1},
		{"one comes back", add(1, 0x1001), nil, 2},
		{"without IPv6 policies", "spdflush;" + protect("10.2.0.0/16", "out"), []int{0}, 2},
	} {
		if step.script != "" {
			f.mtu4s = nil
			f.load(step.script) // of no link the MTU cannot be set
		}
		if !slices.Equal(f.mtu4s, step.applied) {
			t.Errorf("%s: applied routes with MTUs %v, want %v", step.name, f.mtu4s, step.applied)
		}
		if n := strings.Count(logged.String(), "peer=192.0.2.1 path_mtu=1300 needed=1336 fits=1246"); n != step.warned {
			t.Errorf("%s: warned %d times, want %d:\n%s", step.name, n, step.warned, logged.String())
		}
	}
	if n := strings.Count(logged.String(), "level=WARN"); n != 2 {
		t.Errorf("warned %d times in all:\n%s", n, logged.String())
	}
}
