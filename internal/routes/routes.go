// Package routes is what ipsecd does to the host's network configuration: a
// routing table of its own and the rules that lead to it, so that what the
// outbound policies protect goes to the TUN link and what the daemon sends does
// not; and the set-up of the TUN link itself.
//
// A Manager owns its routing table, and the rules in both families that carry
// its protocol number at its priorities. It touches no other rule and no other
// table. It stays in the network namespace of the thread that made it; the
// functions of the package act in that of the calling thread. All may be called
// concurrently. This is control path: every call talks to the kernel.
//
// The rules, P being Config.Priority:
//
//	P    fwmark MARK goto P+4                  what the daemon sends: sealed, or bypassed
//	P+1  ipproto esp, ah, comp goto P+4        sealed packets, in and out
//	P+2  ipproto udp sport PORT goto P+4       the same, UDP-encapsulated
//	P+3  lookup TABLE                          everything else
//	P+4  nop                                   the host's own rules follow
//
// P+1 and P+2 serve packets that arrive as well: strict reverse-path filtering
// (RFC 3704) looks their source up as if it were a destination, with ports
// swapped, and would find the TUN where a peer's own address is protected, and
// drop what came in by the real link. They step over the table rather than look
// up the main one, so that a host's policy routing serves sealed packets too,
// and none of them ever reaches the TUN for want of another route.
package routes

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Defaults of Config.
const (
	DefaultTable    = 0x6970
	DefaultPriority = 5210
)

// protocol is the rtm_protocol of our rules and routes, by which those of an
// instance that was killed are known. iproute2's rt_protos leaves it free.
const protocol = 0x69

var (
	// ErrTableInUse is New's answer when the routing table is not ours alone.
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
	Table    int          // routing table, 0: DefaultTable
	Priority int          // of the first of five, between local's 0 and main's 32766; 0: DefaultPriority
	Mark     uint32       // of every packet that the daemon sends
	NATTPort uint16       // local UDP port of encapsulation, 0: none
	Log      *slog.Logger // nil: none

	// Guard keeps what is protected from leaving in clear when the TUN dies
	// with the daemon, or its route with a local address: behind each route to
	// the TUN stands an unreachable one. A killed daemon leaves these behind,
	// and the next one takes them over; Close removes them.
	Guard bool
}

// Manager keeps rules and routes in place until Close.
type Manager struct {
	cfg      Config
	link     int   // [I] index of the TUN
	families []int // [I] those with policy routing: AF_INET, AF_INET6

	mu     sync.Mutex
	kernel *netlink.Handle // [m] nil once closed
}

// New takes the routing table over, removes what a killed instance left in it,
// and installs the rules. On an error everything is as it was, those leftovers
// apart. Two instances in one namespace need a table and priorities each: New
// refuses a table that leads to another living link (ErrTableInUse).
func New(cfg Config) (*Manager, error) {
	if cfg.Mark == 0 {
		return nil, errors.New("routes need a mark: without one every packet would go round the TUN")
	}
	if cfg.Table == 0 {
		cfg.Table = DefaultTable
	}
	if cfg.Priority == 0 {
		cfg.Priority = DefaultPriority
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	kernel, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	m := &Manager{cfg: cfg, kernel: kernel}
	if err := m.takeOver(); err != nil {
		kernel.Close()
		return nil, err
	}
	if err := m.installRules(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// takeOver finds the link and the families, and clears the table.
func (m *Manager) takeOver() error {
	link, err := m.kernel.LinkByName(m.cfg.Link)
	if err != nil {
		return fmt.Errorf("link %s: %w", m.cfg.Link, err)
	}
	m.link = link.Attrs().Index
	if err := m.findFamilies(); err != nil {
		return err
	}
	if err := m.checkTable(); err != nil {
		return err
	}
	return m.removeRoutes(func(r *netlink.Route) bool { return m.cfg.Guard && r.Priority == guardMetric })
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
// failed half way. A second Close does nothing.
func (m *Manager) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.kernel == nil {
		return nil
	}
	err := errors.Join(m.removeRules(nil), m.removeRoutes(nil))
	m.kernel.Close()
	m.kernel = nil
	return err
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
