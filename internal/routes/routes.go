// Package routes is what ipsecd does to the host's network configuration: a
// routing table of its own and the rules that lead to it, so that what the
// outbound policies protect goes to the TUN link and what the daemon sends does
// not; and the set-up of the TUN link itself.
//
// A Manager owns the routing table 26992, and the rules in both families that
// carry its protocol number at its priorities. It touches no other rule and no
// other table, and of other links than the TUN only rp_filter. One at a time
// serves a network namespace, that of the thread that made it, where it stays; the
// functions of the package act in that of the calling thread. All may be called
// concurrently. This is control path: every call talks to the kernel.
//
// The rules, MARK being Config.Mark, PORT Config.NATTPort, and GROUP a link group
// that holds the TUN alone:
//
//	5210   fwmark MARK goto 5214                        what the daemon sends: sealed, or bypassed
//	5211   iif lo ipproto esp, ah, comp goto 5214       sealed packets, in and out
//	5212   iif lo ipproto udp sport PORT goto 5214      the same, UDP-encapsulated
//	5212   iif lo ipproto udp sport 500 goto 5214       IKE (RFC 7296)
//	5213   lookup 26992                                 everything else
//	5214   ipproto esp nop                              the host's own rules follow
//	32765  fwmark MARK lookup main suppress_ifgroup GROUP
//	32765  fwmark MARK lookup default suppress_ifgroup GROUP (IPv4)
//	32765  fwmark MARK unreachable
//
// 5211 and 5212 serve packets that arrive as well: strict reverse-path filtering
// (RFC 3704) looks their source up as if it were a destination of this host's,
// with ports swapped, and would find the TUN where a peer's own address is
// protected, and drop what came in by the real link. Without iif lo they would
// also lead what is forwarded for others round the TUN. The kernel looks at
// protocol and ports of what arrives only while a rule without iif lo asks for
// them; that is what 5214 does, and all it does.
//
// IKE makes the keys and must not wait for them: it keeps its real route whatever
// the policies say. Port 500 is privileged, unless the host's administrator says
// otherwise (ip_unprivileged_port_start), so no ordinary user gets packets of his
// own past a policy by it; PORT is held by the daemon itself.
//
// ARP requests from protected neighbours are another matter: no rule can tell
// the lookup of their sender from one that must find the TUN. So Apply sets the
// rp_filter of a link to loose where that link filters strictly and a network on
// it is routed into the TUN, and gives it back when that ends. A peer behind a
// router needs none of this, and its link stays strict.
//
// Sealed packets step over the table rather than look up the main one, so that a
// host's policy routing serves them too. The rules at 32765 come right before
// the host's own for the tables main and default, and stand in for them: a route
// into the TUN that somebody made there would lead what the daemon sends back
// to it, for ever. A marked packet for which a table has such a route counts as
// one without a route in that table, though a less specific one would lead
// elsewhere. Rules and tables of the host's own before these are not guarded.
package routes

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What is ours in a network namespace.
const (
	table         = 26992
	firstPriority = 5210
	lastPriority  = 32765 // right before the kernel's rule for the main table
	linkGroup     = 26992 // of the TUN
)

// protocol is the rtm_protocol of our rules and routes, by which those of an
// instance that was killed are known. iproute2's rt_protos leaves it free.
const protocol = 0x69

var (
	// ErrTableInUse is New's answer when the routing table is not ours alone:
	// another Manager lives in this network namespace, or others' routes do.
	ErrTableInUse = errors.New("routing table is in use")
	// ErrNotSupported is New's answer to a kernel without policy routing, or
	// without rules by protocol and port (Linux before 4.17).
	ErrNotSupported = errors.New("kernel lacks what the rules need")
	// ErrClosed is returned by calls after Close.
	ErrClosed = errors.New("routes are closed")
)

// Config says what a Manager works on. Link and Mark must be given.
type Config struct {
	Link     string       // the TUN, which exists
	Mark     uint32       // of every packet that the daemon sends
	NATTPort uint16       // local UDP port of encapsulation, 0: none
	Log      *slog.Logger // nil: none

	// Guard keeps what is protected from leaving in clear when the TUN dies
	// with the daemon, or its route with a local address: behind each route to
	// the TUN stands an unreachable one. A killed daemon leaves these behind,
	// and the next one takes them over; Close removes them.
	Guard bool

	// State is the path of a file in which rp_filter of the links that Apply
	// changed outlives a kill, to be given back by the next Manager; "": none.
	State string
}

// Manager keeps rules and routes in place until Close.
type Manager struct {
	cfg      Config
	lock     *os.File     // of the table
	tun      netlink.Link // [I] as New found it
	families []int        // [I] those with policy routing: AF_INET, AF_INET6

	// inherited says that a killed instance left rules.
	inherited bool // [I]

	owner string // [I] of Config.State

	mu      sync.Mutex
	kernel  *netlink.Handle    // [m] nil once closed
	filters rpFilters          // [m] empty where there are none to change
	loose   map[int]strictLink // [m] links made loose, by index
	warned  map[int]bool       // [m] links that could not be
}

// New takes the routing table over, removes what a killed instance left in it,
// puts the TUN into its group, and installs the rules. On an error everything is
// as it was, those leftovers apart.
func New(cfg Config) (*Manager, error) {
	if cfg.Mark == 0 {
		return nil, errors.New("routes need a mark: without one every packet would go round the TUN")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	lock, err := lockTable()
	if err != nil {
		return nil, err
	}
	kernel, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("netlink: %w", err), lock.Close())
	}
	m := &Manager{cfg: cfg, lock: lock, kernel: kernel, loose: map[int]strictLink{}, warned: map[int]bool{}}
	if err := m.takeOver(); err != nil {
		return nil, errors.Join(err, m.release())
	}
	if err := m.install(); err != nil {
		return nil, errors.Join(err, m.Abort())
	}
	return m, nil
}

// takeOver finds the link and the families, and clears the table.
func (m *Manager) takeOver() (err error) {
	if m.tun, err = m.kernel.LinkByName(m.cfg.Link); err != nil {
		return fmt.Errorf("link %s: %w", m.cfg.Link, err)
	}
	if err := m.findFamilies(); err != nil {
		return err
	}
	if err := m.checkTable(); err != nil {
		return err
	}
	for _, family := range m.families {
		rules, err := m.ourRules(family)
		if err != nil {
			return err
		}
		m.inherited = m.inherited || len(rules) > 0
	}
	if err := m.openFilters(); err != nil {
		return err
	}
	return m.removeRoutes(func(r *netlink.Route) bool { return m.cfg.Guard && r.Priority == guardMetric })
}

// openFilters finds the links' rp_filter, and what a killed instance changed there.
func (m *Manager) openFilters() (err error) {
	m.filters, err = openRPFilters()
	if errors.Is(err, fs.ErrNotExist) {
		m.cfg.Log.Debug("reverse-path filtering cannot be told", "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	return m.recall()
}

func (m *Manager) install() error {
	if err := m.kernel.LinkSetGroup(m.tun, linkGroup); err != nil {
		return fmt.Errorf("link %s: group %d: %w", m.cfg.Link, linkGroup, err)
	}
	return m.installRules()
}

// findFamilies asks which families have rules.
func (m *Manager) findFamilies() error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		_, err := m.listRules(family)
		switch {
		case err == nil:
			m.families = append(m.families, family)
		case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
			m.cfg.Log.Debug("no policy routing", "family", familyName(family), "err", err)
		default:
			return fmt.Errorf("list %s rules: %w", familyName(family), err)
		}
	}
	if len(m.families) == 0 {
		return fmt.Errorf("%w: no policy routing (CONFIG_IP_MULTIPLE_TABLES)", ErrNotSupported)
	}
	return nil
}

// Close removes every rule and route of ours, also those of an Apply that
// failed half way, and gives the TUN, if it is still there, the group it had, and
// links their reverse-path filtering. A second Close does nothing.
func (m *Manager) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kernel == nil {
		return nil
	}
	return errors.Join(m.removeRules(nil), m.removeRoutes(nil), m.tighten(nil), m.restoreGroup(), m.release())
}

// Abort is Close before the first packet: of what a killed instance left, which
// keeps what it protected from leaving in clear, nothing is taken away.
func (m *Manager) Abort() error {
	if !m.inherited {
		return m.Close()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kernel == nil {
		return nil
	}
	return m.release()
}

// Repair puts rules back that somebody else removed, and links to loose filtering
// that Apply had set to it. It is cheap, whatever the size of the table; Apply
// does it too.
func (m *Manager) Repair() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kernel == nil {
		return ErrClosed
	}
	return errors.Join(m.repairRules(), m.keepLoose())
}

func (m *Manager) restoreGroup() error {
	err := m.kernel.LinkSetGroup(m.tun, int(m.tun.Attrs().Group))
	if err == nil || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("link %s: group: %w", m.cfg.Link, err)
}

// release leaves the kernel as it is, and the table to the next Manager.
func (m *Manager) release() error {
	m.kernel.Close()
	m.kernel = nil
	if m.filters.conf == nil {
		return m.lock.Close()
	}
	return errors.Join(m.filters.close(), m.lock.Close())
}

func familyName(family int) string {
	if family == unix.AF_INET {
		return "IPv4"
	}
	return "IPv6"
}

// dump calls list again while the kernel says that the answer changed under it.
func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range 10 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}
