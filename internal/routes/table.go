package routes

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Metrics of our routes: those that count, and the unreachable ones of
// Config.Guard behind them.
const (
	metric      = 1024
	guardMetric = 2048
)

// Route is what an outbound policy protects: packets to Dst, of which those
// that this host originates come from an address in Src. Both are of one family
// and masked.
type Route struct {
	Dst, Src netip.Prefix
}

// place is where in the table a route stands; one place holds one route.
type place struct {
	dst    netip.Prefix
	metric int
}

// target is what becomes of packets there.
type target struct {
	kind int        // RTN_UNICAST: to the TUN; RTN_THROW: on to the next rule; RTN_UNREACHABLE
	src  netip.Addr // source of what this host originates, invalid: the kernel chooses
	mtu  int        // octets, 0: the link's
}

// linkScoped are the destinations that stay on the link they are sent on, and
// never go to the TUN as a part of something larger.
var linkScoped = []netip.Prefix{
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// Apply makes the table hold a route to the TUN for each Dst of protect, and
// nothing else but
//
//   - a way out for multicast, broadcast and link-local destinations, where a
//     Dst contains them and more (neighbour discovery needs them);
//   - a way out for each prefix of exempt that is not also a Dst. The longest
//     prefix wins here, unlike in the SPD: it is the caller who knows that no
//     policy protects any of it.
//
// A route asks for a source address inside Src, if this host has one, best on
// the TUN itself, so that what the host originates matches the policy. Of
// several policies with one Dst the first that has such an address decides.
// Call Apply again when addresses come or go.
//
// IPv4 packets into the TUN have at most mtu4 octets, or what the link takes where
// that is 0. So they fit a path that is too small for IPv6, which keeps the link's
// MTU up; IPv6 knows no MTU below that.
//
// A link on which there are neighbours that a route to the TUN leads away, and that
// filters strictly by reverse path, is made to filter loosely, or it would not
// answer their ARP requests; where that is not to be, one line in the log says
// so. Close, or the Apply with which that ends, gives it back what it had.
//
// It compares with what the kernel has, so it repairs what others undid, rules
// included, and its cost grows with the table. What is right already stays untouched; new routes
// are made before old ones go. Routes that cannot be made do not keep Apply from
// the rest; the error tells the first and how many they are. A TUN that goes down
// loses its routes, and gets none until it is up.
func (m *Manager) Apply(protect []Route, exempt []netip.Prefix, mtu4 int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kernel == nil {
		return ErrClosed
	}
	repaired := m.repairRules()
	local, err := m.localAddrs()
	if err != nil {
		return err
	}
	have, err := m.listRoutes()
	if err != nil {
		return err
	}
	want := m.plan(protect, exempt, mtu4, local)
	neighbours, loosened := m.loosen(want)
	changed := m.change(have, want)
	if neighbours != nil {
		changed = errors.Join(changed, m.tighten(neighbours))
	}
	return errors.Join(repaired, loosened, changed)
}

// plan lays the table out.
func (m *Manager) plan(protect []Route, exempt []netip.Prefix, mtu4 int, local localAddrs) map[place]target {
	want := make(map[place]target, len(protect))
	for _, r := range protect {
		if !m.routable(r.Dst) {
			m.cfg.Log.Debug("not routed", "dst", r.Dst)
			continue
		}
		at := place{r.Dst, metric}
		if t, ok := want[at]; !ok || !t.src.IsValid() {
			want[at] = target{unix.RTN_UNICAST, local.in(r.Src), mtuFor(r.Dst, mtu4)}
		}
		if m.cfg.Guard {
			want[place{r.Dst, guardMetric}] = target{kind: unix.RTN_UNREACHABLE}
		}
	}
	for _, r := range protect {
		for _, p := range linkScoped {
			if r.Dst.Bits() < p.Bits() && r.Dst.Contains(p.Addr()) {
				throw(want, p)
			}
		}
	}
	for _, p := range exempt {
		if m.routable(p) {
			throw(want, p)
		}
	}
	return want
}

// mtuFor is the MTU of a route to dst, 0: the link's.
func mtuFor(dst netip.Prefix, mtu4 int) int {
	if dst.Addr().Is4() {
		return mtu4
	}
	return 0
}

func throw(want map[place]target, dst netip.Prefix) {
	at := place{dst, metric}
	if _, ok := want[at]; !ok {
		want[at] = target{kind: unix.RTN_THROW}
	}
}

// routable tells whether the kernel routes the prefix's family. IPv4-mapped
// IPv6 addresses do not travel.
func (m *Manager) routable(p netip.Prefix) bool {
	if !p.IsValid() || p.Addr().Is4In6() {
		return false
	}
	for _, family := range m.families {
		if familyOf(p) == family {
			return true
		}
	}
	return false
}

// change turns what the table has into what it shall have.
func (m *Manager) change(have, want map[place]target) error {
	var first error
	failed := 0
	fail := func(verb string, at place, err error) {
		if failed++; first == nil {
			first = fmt.Errorf("%s route to %s: %w", verb, at.dst, err)
		}
	}
	for at, t := range want {
		if old, ok := have[at]; ok && old == t {
			continue
		}
		if err := m.kernel.RouteReplace(m.route(at, t)); err != nil {
			fail("add", at, err)
		}
	}
	for at, t := range have {
		if _, ok := want[at]; ok {
			continue
		}
		if err := m.kernel.RouteDel(m.route(at, t)); err != nil && !errors.Is(err, unix.ESRCH) {
			fail("remove", at, err)
		}
	}
	if failed > 1 {
		return fmt.Errorf("%w (and %d more)", first, failed-1)
	}
	return first
}

func (m *Manager) route(at place, t target) *netlink.Route {
	r := &netlink.Route{
		Table: table, Protocol: protocol, Priority: at.metric, Type: t.kind, MTU: t.mtu,
		Dst: &net.IPNet{IP: at.dst.Addr().AsSlice(), Mask: net.CIDRMask(at.dst.Bits(), at.dst.Addr().BitLen())},
	}
	if t.kind == unix.RTN_UNICAST {
		r.LinkIndex, r.Scope = m.tun.Attrs().Index, netlink.SCOPE_LINK
	}
	if t.src.IsValid() {
		r.Src = t.src.AsSlice()
	}
	return r
}

// tableRoutes dumps the routing table, whoever made what is in it.
func (m *Manager) tableRoutes() ([]netlink.Route, error) {
	var all []netlink.Route
	for _, family := range m.families {
		routes, err := dump(func() ([]netlink.Route, error) {
			return m.kernel.RouteListFiltered(family, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list %s routes of table %d: %w", familyName(family), table, err)
		}
		all = append(all, routes...)
	}
	return all, nil
}

// listRoutes reads our routes from the kernel.
func (m *Manager) listRoutes() (map[place]target, error) {
	all, err := m.tableRoutes()
	if err != nil {
		return nil, err
	}
	have := make(map[place]target, len(all))
	for i := range all {
		if r := &all[i]; r.Protocol == protocol {
			have[place{prefixOf(r), r.Priority}] = targetOf(r)
		}
	}
	return have, nil
}

// checkTable refuses a table with routes of others. Ours are leftovers: the lock
// of the table says that nobody else is alive to keep them.
func (m *Manager) checkTable() error {
	all, err := m.tableRoutes()
	if err != nil {
		return err
	}
	for i := range all {
		if r := &all[i]; r.Protocol != protocol {
			return fmt.Errorf("%w: table %d holds a route to %s that is not ours; "+
				"remove it, or run ipsecd with --routes off", ErrTableInUse, table, prefixOf(r))
		}
	}
	return nil
}

// removeRoutes removes our routes except those to keep; a nil keep keeps none.
func (m *Manager) removeRoutes(keep func(*netlink.Route) bool) error {
	all, err := m.tableRoutes()
	if err != nil {
		return err
	}
	var errs []error
	for i := range all {
		r := &all[i]
		if r.Protocol != protocol || keep != nil && keep(r) {
			continue
		}
		old := m.route(place{prefixOf(r), r.Priority}, targetOf(r))
		old.LinkIndex = 0 // any: a killed instance may have had another TUN
		err := m.kernel.RouteDel(old)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("remove route to %s: %w", prefixOf(r), err))
		}
	}
	return errors.Join(errs...)
}

func prefixOf(r *netlink.Route) netip.Prefix {
	if r.Dst != nil {
		return prefixOfNet(r.Dst)
	}
	if r.Family == unix.AF_INET {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

func prefixOfNet(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a, bits)
}

func targetOf(r *netlink.Route) target {
	src, _ := netip.AddrFromSlice(r.Src)
	return target{r.Type, src.Unmap(), r.MTU}
}

func familyOf(p netip.Prefix) int {
	if p.Addr().Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
