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
	ipProto  int    // 0: any
	srcPort  uint16 // 0: any

	// What happens: a table is looked up, or the rules go on from a priority,
	// or, where both are 0, nothing.
	table int
	jump  int
}

// rulesUsed is how many priorities we use.
const rulesUsed = 5

// wantedRules lists a family's rules, as the package comment does.
func (m *Manager) wantedRules(family int) []rule {
	p := m.cfg.Priority
	end := p + rulesUsed - 1
	rules := []rule{{priority: p, mark: m.cfg.Mark, jump: end}}
	for _, proto := range []int{unix.IPPROTO_ESP, unix.IPPROTO_AH, unix.IPPROTO_COMP} {
		rules = append(rules, rule{priority: p + 1, ipProto: proto, jump: end})
	}
	if port := m.cfg.NATTPort; port != 0 {
		rules = append(rules, rule{priority: p + 2, ipProto: unix.IPPROTO_UDP, srcPort: port, jump: end})
	}
	rules = append(rules, rule{priority: p + 3, table: m.cfg.Table}, rule{priority: end})
	for i := range rules {
		rules[i].family = family
	}
	return rules
}

func (r rule) netlink() *netlink.Rule {
	n := netlink.NewRule()
	n.Family, n.Priority, n.Table, n.Protocol = r.family, r.priority, r.table, protocol
	if r.mark != 0 {
		mask := ^uint32(0)
		n.Mark, n.Mask = r.mark, &mask
	}
	n.IPProto = r.ipProto
	if r.srcPort != 0 {
		n.Sport = netlink.NewRulePortRange(r.srcPort, r.srcPort)
	}
	switch {
	case r.jump != 0:
		n.Goto = r.jump
	case r.table == 0:
		n.Type = nl.FR_ACT_NOP
	}
	return n
}

func ruleOf(n *netlink.Rule) rule {
	r := rule{
		family: n.Family, priority: n.Priority, mark: n.Mark, ipProto: n.IPProto,
		table: n.Table, jump: max(n.Goto, 0),
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
		p := all[i].Priority - m.cfg.Priority
		if all[i].Protocol == protocol && p >= 0 && p < rulesUsed {
			ours = append(ours, ruleOf(&all[i]))
		}
	}
	return ours, nil
}

// installRules makes our rules the wanted ones. Leftovers that are wanted stay
// where they are, so that nothing leaks meanwhile.
func (m *Manager) installRules() error {
	var want []rule
	for _, family := range m.families {
		want = append(want, m.wantedRules(family)...)
	}
	if err := m.removeRules(want); err != nil {
		return err
	}
	for _, r := range want {
		if err := m.kernel.RuleAdd(r.netlink()); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add %v: %w", r, err)
		}
	}
	return m.verifyRules(want)
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

// removeRules removes our rules except those to keep, first the one that looks
// the table up: packets must not meet it once they are no longer led past it.
func (m *Manager) removeRules(keep []rule) error {
	var errs []error
	for _, family := range m.families {
		have, err := m.ourRules(family)
		errs = append(errs, err)
		slices.SortStableFunc(have, func(a, b rule) int { return cmp.Compare(b.table, a.table) })
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
