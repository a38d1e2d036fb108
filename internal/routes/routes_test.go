package routes

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestNewErrors(t *testing.T) {
	h := newWiredHost(t)
	h.do(func() error {
		if _, err := New(Config{Link: "ipsec0"}); err == nil {
			return errors.New("made without a mark")
		}
		if _, err := New(Config{Link: "nolink", Mark: 1}); err == nil || !strings.Contains(err.Error(), "link nolink: ") {
			return fmt.Errorf("without a link: %v", err)
		}
		return nil
	})
}

func TestRules(t *testing.T) {
	h := newWiredHost(t)
	h.do(func() error { // somebody else's, which stays
		other := netlink.NewRule()
		other.Priority, other.Table = firstPriority+3, 1234
		if err := netlink.RuleAdd(other); err != nil {
			return err
		}
		other.Priority = lastPriority
		return netlink.RuleAdd(other)
	})
	before := h.rules()
	m := h.start(Config{Link: "ipsec0", NATTPort: 4500})

	var want []string
	for _, hostTables := range [][]string{{"254", "253"}, {"254"}} {
		want = append(want,
			"5210 mark 0x1b5ec/0xffffffff goto 5214",
			"5211 iif lo proto 50 goto 5214",
			"5211 iif lo proto 51 goto 5214",
			"5211 iif lo proto 108 goto 5214",
			"5212 iif lo proto 17 sport 4500-4500 goto 5214",
			"5212 iif lo proto 17 sport 500-500 goto 5214",
			"5213 table 26992",
			"5214 proto 50")
		for _, table := range hostTables {
			want = append(want, "32765 mark 0x1b5ec/0xffffffff table "+table+" but group 26992")
		}
		want = append(want, "32765 mark 0x1b5ec/0xffffffff")
	}
	var got []string
	for _, r := range h.rules() {
		if r.Protocol == protocol {
			got = append(got, showRule(&r))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("rules\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	for range 2 {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
	if after := h.rules(); len(after) != len(before) {
		t.Errorf("rules after Close: %v", after)
	}
	if err := m.Apply(nil, nil, 0); !errors.Is(err, ErrClosed) {
		t.Errorf("Apply after Close: %v", err)
	}
}

func TestSortForRemoval(t *testing.T) {
	m := &Manager{cfg: Config{Mark: testMark, NATTPort: 4500}}
	rules := m.wantedRules(unix.AF_INET)
	sortForRemoval(rules)
	var got []string
	for _, r := range rules {
		got = append(got, showRule(r.netlink()))
	}
	want := []string{
		"5213 table 26992",
		"32765 mark 0x1b5ec/0xffffffff",
		"32765 mark 0x1b5ec/0xffffffff table 253 but group 26992",
		"32765 mark 0x1b5ec/0xffffffff table 254 but group 26992",
		"5214 proto 50",
		"5212 iif lo proto 17 sport 500-500 goto 5214",
		"5212 iif lo proto 17 sport 4500-4500 goto 5214",
		"5211 iif lo proto 108 goto 5214",
		"5211 iif lo proto 51 goto 5214",
		"5211 iif lo proto 50 goto 5214",
		"5210 mark 0x1b5ec/0xffffffff goto 5214",
	}
	if !slices.Equal(got, want) {
		t.Errorf("order\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func showRule(r *netlink.Rule) string {
	line := fmt.Sprint(r.Priority)
	if r.Mark != 0 {
		line += fmt.Sprintf(" mark %#x/%#x", r.Mark, *r.Mask)
	}
	if r.IifName != "" {
		line += " iif " + r.IifName
	}
	if r.IPProto != 0 {
		line += fmt.Sprintf(" proto %d", r.IPProto)
	}
	if r.Sport != nil {
		line += fmt.Sprintf(" sport %d-%d", r.Sport.Start, r.Sport.End)
	}
	if r.Goto >= 0 {
		line += fmt.Sprintf(" goto %d", r.Goto)
	}
	if r.Table != 0 {
		line += fmt.Sprintf(" table %d", r.Table)
	}
	if r.SuppressIfgroup >= 0 {
		line += fmt.Sprintf(" but group %d", r.SuppressIfgroup)
	}
	return line
}

// An instance dies without Close; the next one starts on a new TUN.
func TestLeftovers(t *testing.T) {
	for _, guard := range []bool{false, true} {
		t.Run(fmt.Sprintf("guard=%v", guard), func(t *testing.T) {
			h := newWiredHost(t)
			bare := h.rules()
			remove := h.tun("ipsec1")
			h.do(func() error { return SetupLink("ipsec1", 1400, nil, 0, 0) })
			killed := h.start(Config{Link: "ipsec1", NATTPort: 4500, Guard: guard})
			h.apply(killed, []Route{protected("0.0.0.0/0", "0.0.0.0/0"), protected("fd00::/8", "fd00::/8")}, "10.9.0.0/16")
			kill(t, killed)
			remove()
			left := []string{"throw 10.9.0.0/16", "throw 224.0.0.0/4", "throw 255.255.255.255/32"}
			guards := []string{"unreachable 0.0.0.0/0", "unreachable fd00::/8"}
			if guard {
				h.wantTable(append(left, guards...)...)
				h.wantWay("198.51.100.1", 0, unix.EHOSTUNREACH.Error())
				h.wantWay("fd00::1", 0, unix.EHOSTUNREACH.Error())
				h.wantWay("198.51.100.1", testMark, "wire 192.0.2.1 via 192.0.2.254")
			} else {
				h.wantTable(left...)
			}

			m := h.start(Config{Link: "ipsec0", NATTPort: 4501, Guard: guard})
			if guard {
				h.wantTable(guards...)
			} else {
				h.wantTable()
			}
			var ports []uint16
			for _, r := range h.rules() {
				if r.Sport != nil {
					ports = append(ports, r.Sport.Start)
				}
			}
			if !slices.Equal(ports, []uint16{500, 4501, 500, 4501}) {
				t.Errorf("rules for the ports %v are left, want 500 and 4501 in both families", ports)
			}
			if got, want := len(h.rules()), len(bare)+21; got != want {
				t.Errorf("%d rules, want %d", got, want)
			}

			h.apply(m, []Route{protected("10.0.0.0/8", "10.0.0.0/8")})
			want := []string{"10.0.0.0/8 dev ipsec0"}
			if guard {
				want = append(want, "unreachable 10.0.0.0/8")
			}
			h.wantTable(want...)
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			h.wantTable()
			if got := h.rules(); len(got) != len(bare) {
				t.Errorf("rules after Close: %v", got)
			}
		})
	}
}

func TestOthersRoutes(t *testing.T) {
	h := newWiredHost(t)
	rules := len(h.rules())
	h.do(func() error {
		link, err := netlink.LinkByName("wire")
		if err != nil {
			return err
		}
		dst := netlink.NewIPNet(netip.MustParseAddr("10.5.0.1").AsSlice())
		route := &netlink.Route{Table: table, Dst: dst, LinkIndex: link.Attrs().Index}
		if err := netlink.RouteAdd(route); err != nil {
			return err
		}
		_, err = New(Config{Link: "ipsec0", Mark: testMark})
		want := "table 26992 holds a route to 10.5.0.1/32 that is not ours; remove it, or run ipsecd with --routes off"
		if !errors.Is(err, ErrTableInUse) || !strings.Contains(err.Error(), want) {
			return fmt.Errorf("beside somebody's routes: %w", err)
		}
		return netlink.RouteDel(route)
	})
	if got := len(h.rules()); got != rules {
		t.Errorf("%d rules, want %d as before", got, rules)
	}
	h.start(Config{Link: "ipsec0"})
}
