package routes

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The kernel answers an ARP request only if its sender passes reverse-path
// filtering. Strict filtering (RFC 3704) finds the TUN where the sender's address
// is protected, and an ARP lookup has neither protocol nor port nor, but by a
// packet filter, a mark, by which a rule could tell it from what must go to the
// TUN. So a link with protected neighbours is made to filter loosely while it has
// them; the other links stay as they are.

// strictLink is a link that we made filter loosely.
type strictLink struct {
	name string
	was  int // its own rp_filter before
}

// loosen makes the links with neighbours in want, places of the table, answer
// ARP, and returns those links, by index; nil when they could not be found.
func (m *Manager) loosen(want map[place]target) (neighbours map[int]string, err error) {
	neighbours, err = m.protectedNeighbours(want)
	if err != nil || m.filters.conf == nil {
		return neighbours, err
	}
	var errs []error
	for index, name := range neighbours {
		errs = append(errs, m.loosenLink(index, name))
	}
	return neighbours, errors.Join(errs...)
}

// keepLoose makes links loose again that somebody set back.
func (m *Manager) keepLoose() error {
	var errs []error
	for index, l := range m.loose {
		errs = append(errs, m.loosenLink(index, l.name))
	}
	return errors.Join(errs...)
}

// loosenLink makes a strict link loose. What cannot be written is said once.
func (m *Manager) loosenLink(index int, name string) error {
	own, err := m.filters.own(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the link went, or has another name now
	}
	if err != nil || own == rpLoose {
		return err
	}
	strict, all, err := m.filters.strict(own)
	if err != nil {
		return err
	}
	if !strict {
		m.forget(index)
		return nil
	}
	if err := m.filters.writable(name); err != nil {
		m.warnStrict(index, name, err)
		return nil
	}
	_, again := m.loose[index]
	m.remember(index, strictLink{name, own})
	if err := m.filters.set(name, rpLoose); err != nil {
		m.forget(index)
		m.warnStrict(index, name, err)
		return nil
	}
	if again {
		return nil // somebody set it back, perhaps again and again
	}
	m.cfg.Log.Info("strict reverse-path filtering would leave ARP requests of protected neighbours unanswered; "+
		"made it loose, until protection ends", "link", name, "sysctl", sysctlName(name), "was", own, "all", all)
	return nil
}

func (m *Manager) warnStrict(index int, name string, err error) {
	if m.warned[index] {
		return
	}
	m.warned[index] = true
	m.cfg.Log.Warn("strict reverse-path filtering leaves ARP requests of protected neighbours unanswered, and cannot be changed from here; "+
		"run: sysctl -w "+sysctlName(name)+"=2", "link", name, "err", err)
}

// tighten gives all links their own rp_filter back, but those to keep. One that
// is not as we left it is somebody else's by now.
func (m *Manager) tighten(keep map[int]string) error {
	var errs []error
	for index := range m.loose {
		if _, ok := keep[index]; !ok {
			errs = append(errs, m.tightenLink(index))
		}
	}
	return errors.Join(errs...)
}

func (m *Manager) tightenLink(index int) error {
	link, err := m.kernel.LinkByIndex(index)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		m.forget(index)
		return nil
	}
	if err != nil {
		return fmt.Errorf("link %s: %w", m.loose[index].name, err)
	}
	name := link.Attrs().Name
	own, err := m.filters.own(name)
	if err == nil && own == rpLoose {
		err = m.filters.set(name, m.loose[index].was)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // it may have another name by now
		return fmt.Errorf("link %s: reverse-path filtering: %w", name, err)
	}
	m.forget(index)
	return nil
}

// onLink is a network without a router between it and a link.
type onLink struct {
	index int
	net   netip.Prefix
}

// protectedNeighbours names, by index, the links that speak ARP and have a part of
// a network on them routed into the TUN.
func (m *Manager) protectedNeighbours(want map[place]target) (map[int]string, error) {
	networks, err := m.onLinkNetworks()
	if err != nil {
		return nil, err
	}
	found := map[int]string{}
	for _, n := range networks {
		if _, ok := found[n.index]; ok || !entersTUN(want, n.net) {
			continue
		}
		link, err := m.kernel.LinkByIndex(n.index)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			continue // it went meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("link %d: %w", n.index, err)
		}
		if link.Attrs().RawFlags&unix.IFF_NOARP == 0 && link.Attrs().Flags&net.FlagLoopback == 0 {
			found[n.index] = link.Attrs().Name
		}
	}
	return found, nil
}

// onLinkNetworks lists the IPv4 networks of all links' addresses and of the main
// table's routes without a gateway.
func (m *Manager) onLinkNetworks() (all []onLink, err error) {
	addrs, err := dump(func() ([]netlink.Addr, error) { return m.kernel.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return nil, fmt.Errorf("list IPv4 addresses: %w", err)
	}
	routes, err := dump(func() ([]netlink.Route, error) { return m.kernel.RouteList(nil, unix.AF_INET) })
	if err != nil {
		return nil, fmt.Errorf("list IPv4 routes: %w", err)
	}
	add := func(index int, p netip.Prefix) {
		if index != 0 { // else it has several ways, with gateways
			all = append(all, onLink{index, p.Masked()})
		}
	}
	for i := range addrs {
		if p := prefixOfNet(addrs[i].IPNet); !p.IsSingleIP() { // an address alone has no neighbours
			add(addrs[i].LinkIndex, p)
		}
	}
	for i := range routes {
		if r := &routes[i]; r.Gw == nil && r.Via == nil && r.Type == unix.RTN_UNICAST {
			add(r.LinkIndex, prefixOf(r))
		}
	}
	return all, nil
}

// entersTUN tells whether the places lead any part of a network into the TUN.
func entersTUN(want map[place]target, network netip.Prefix) bool {
	for at, t := range want {
		if t.kind == unix.RTN_UNICAST && at.dst.Overlaps(network) && !thrown(want, at.dst, network) {
			return true
		}
	}
	return false
}

// thrown tells whether a way out between dst and network, of which one contains
// the other, keeps all of the smaller one from the route to dst.
func thrown(want map[place]target, dst, network netip.Prefix) bool {
	for bits := network.Bits(); bits > dst.Bits(); bits-- {
		p := netip.PrefixFrom(network.Addr(), bits).Masked()
		if want[place{p, metric}].kind == unix.RTN_THROW {
			return true
		}
	}
	return false
}
