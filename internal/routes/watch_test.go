package routes

import (
	"context"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// Each kind of change is told, and nothing is while nothing changes.
func TestWatch(t *testing.T) {
	h := newWiredHost(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var changed <-chan struct{}
	h.do(func() (err error) {
		changed, err = Watch(ctx)
		return err
	})
	told := func(wait time.Duration) bool {
		select {
		case <-changed:
			return true
		case <-time.After(wait):
			return false
		}
	}
	for told(300 * time.Millisecond) { // what the links had to say for themselves
	}
	rule := netlink.NewRule()
	rule.Priority, rule.Table, rule.Family = 77, 77, netlink.FAMILY_V6
	for name, change := range map[string]func() error{
		"filter":  func() error { return writeRPFilter("wire", "1") },
		"rule":    func() error { return netlink.RuleAdd(rule) },
		"route":   func() error { return dropDefault(netlink.FAMILY_V4) },
		"MTU":     func() error { return SetMTU("ipsec0", 1310) },
		"address": func() error { return SetupLink("ipsec0", 1300, prefixes("10.9.9.9/32"), 0, 0) },
	} {
		h.do(change)
		if !told(5 * time.Second) {
			t.Errorf("%s: not told", name)
		}
		for told(300 * time.Millisecond) {
		}
	}
}
