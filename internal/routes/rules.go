package routes

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// rule is one of our rules, comparable. Its protocol number is ours.
type rule struct {
	family   int
	priority int
	mark     uint32 // with a full mask, 0: any
	iif      string // link that the packet came in by, loopback: from this host; "": any
	ipProto  int    // 0: any
	srcPort  uint16 // 0: any

	// What happens: a table is looked up, or the rules go on from a priority.
	// Where both are 0, nothing, but unreachable at lastPriority.
	table    int
	suppress int // group of links to which the table's routes do not count, 0: none
	jump     int
}

const (
	loopback    = "lo"
	portIKE     = 500               // RFC 7296, section 2.11
	endPriority = firstPriority + 4 // where what goes round our table goes on
)

// wantedRules lists a family's rules, as the package comment does.
func (m *Manager) wantedRules(family int) []rule {
	rules := []rule{{priority: firstPriority, mark: m.cfg.Mark, jump: endPriority}}
	for _, proto := range []int{unix.IPPROTO_ESP, unix.IPPROTO_AH, unix.IPPROTO_COMP} {
		rules = append(rules, rule{priority: firstPriority + 1, iif: loopback, ipProto: proto, jump: endPriority})
	}
	for _, port := range m.ownPorts() {
		rules = append(rules, rule{
			priority: firstPriority + 2, iif: loopback, ipProto: unix.IPPROTO_UDP, srcPort: port, jump: endPriority,
		})
	}
	rules = append(rules,
		rule{priority: firstPriority + 3, table: table},
		rule{priority: endPriority, ipProto: unix.IPPROTO_ESP})
	for _, t := range hostTables(family) {
		rules = append(rules, rule{priority: lastPriority, mark: m.cfg.Mark, table: t, suppress: linkGroup})
	}
	rules = append(rules, rule{priority: lastPriority, mark: m.cfg.Mark})
	for i := range rules {
		rules[i].family = family
	}
	return rules
}

// ownPorts are the UDP ports that packets with keys, and the exchange of keys,
// come from.
func (m *Manager) ownPorts() []uint16 {
	if port := m.cfg.NATTPort; port != 0 && port != portIKE {
		return []uint16{port, portIKE}
	}
	return []uint16{portIKE}
}

// hostTables are those that the kernel's own rules look up behind ours.
func hostTables(family int) []int {
	if family == unix.AF_INET {
		return []int{unix.RT_TABLE_MAIN, unix.RT_TABLE_DEFAULT}
	}
	return []int{unix.RT_TABLE_MAIN}
}

func (r rule) netlink() *netlink.Rule {
	n := netlink.NewRule()
	n.Family, n.Priority, n.Table, n.Protocol = r.family, r.priority, r.table, protocol
	if r.mark != 0 {
		mask := ^uint32(0)
		n.Mark, n.Mask = r.mark, &mask
	}
	n.IifName, n.IPProto = r.iif, r.ipProto
	if r.srcPort != 0 {
		n.Sport = netlink.NewRulePortRange(r.srcPort, r.srcPort)
	}
	if r.suppress != 0 {
		n.SuppressIfgroup = r.suppress
	}
	switch {
	case r.jump != 0:
		n.Goto = r.jump
	case r.table != 0:
	case r.priority == lastPriority:
		n.Type = nl.FR_ACT_UNREACHABLE
	default:
		n.Type = nl.FR_ACT_NOP
	}
	return n
}

func ruleOf(n *netlink.Rule) rule {
	r := rule{
		family: n.Family, priority: n.Priority, mark: n.Mark, iif: n.IifName, ipProto: n.IPProto,
		table: n.Table, suppress: max(n.SuppressIfgroup, 0), jump: max(n.Goto, 0),
	}
	if n.Sport != nil {
		r.srcPort = n.Sport.Start
	}
	return r
}

func (r rule) String() string {
	return fmt.Sprintf("%s rule at priority %d", familyName(r.family), r.priority)
}

func (m *Manager) listRules(family int) ([]netlink.Rule, error) {
	return dump(func() ([]netlink.Rule, error) { return m.kernel.RuleList(family) })
}

// ourRules lists those rules of a family that we, or a killed instance, made.
func (m *Manager) ourRules(family int) ([]rule, error) {
	all, err := m.listRules(family)
	if err != nil {
		return nil, fmt.Errorf("list %s rules: %w", familyName(family), err)
	}
	var ours []rule
	for i := range all {
		if all[i].Protocol == protocol && ourPriority(all[i].Priority) {
			ours = append(ours, ruleOf(&all[i]))
		}
	}
	return ours, nil
}

func ourPriority(p int) bool {
	return firstPriority <= p && p <= endPriority || p == lastPriority
}

// installRules makes our rules the wanted ones. Leftovers that are wanted stay
// where they are, so that nothing leaks meanwhile; but not those that share a
// priority, where the order counts. These serve the daemon alone.
func (m *Manager) installRules() error {
	var want, keep []rule
	for _, family := range m.families {
		want = append(want, m.wantedRules(family)...)
	}
	for _, r := range want {
		if r.priority != lastPriority {
			keep = append(keep, r)
		}
	}
	if err := m.removeRules(keep); err != nil {
		return err
	}
	for _, r := range want {
		if err := m.kernel.RuleAdd(r.netlink()); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add %v: %w", r, err)
		}
	}
	return m.verifyRules(want)
}

// repairRules puts rules back that somebody else removed.
func (m *Manager) repairRules() error {
	for _, family := range m.families {
		have, err := m.ourRules(family)
		if err != nil {
			return err
		}
		for _, r := range m.wantedRules(family) {
			if !slices.Contains(have, r) {
				m.cfg.Log.Warn("somebody removed a rule; put it back", "rule", r.String())
				return m.installRules()
			}
		}
	}
	return nil
}

// verifyRules reads the rules back: an old kernel ignores the attributes it
// does not know, which would turn the rule for one protocol into one for all
// packets and lead them round the TUN.
func (m *Manager) verifyRules(want []rule) error {
	for _, family := range m.families {
		have, err := m.ourRules(family)
		if err != nil {
			return err
		}
		for _, r := range want {
			if r.family == family && !slices.Contains(have, r) {
				return fmt.Errorf("%w: %v came back changed; Linux 4.17 knows them all", ErrNotSupported, r)
			}
		}
	}
	return nil
}

// removeRules removes our rules except those to keep.
func (m *Manager) removeRules(keep []rule) error {
	var errs []error
	for _, family := range m.families {
		have, err := m.ourRules(family)
		errs = append(errs, err)
		sortForRemoval(have)
		for _, r := range have {
			if slices.Contains(keep, r) {
				continue
			}
			if err := m.kernel.RuleDel(r.netlink()); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("remove %v: %w", r, err))
			}
		}
	}
	return errors.Join(errs...)
}

// sortForRemoval puts first the rule that looks our table up: packets must not
// meet it once they are no longer led past it. The rest goes from the last to
// the first, so that nothing is unreachable that has a route.
func sortForRemoval(rules []rule) {
	slices.Reverse(rules)
	rank := func(r rule) int {
		if r.table == table {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(rules, func(a, b rule) int { return cmp.Compare(rank(a), rank(b)) })
}
