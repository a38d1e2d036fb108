package packet

import (
	"regexp"
	"strings"
	"testing"
)

var dropName = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)

func TestDropNames(t *testing.T) {
	seen := map[string]Drop{}
	for d := Kept; d < NumDrops; d++ {
		name, help := d.String(), d.Help()
		if !dropName.MatchString(name) {
			t.Errorf("drop %d is named %q", d, name)
		}
		if other, ok := seen[name]; ok {
			t.Errorf("drops %d and %d are both named %q", other, d, name)
		}
		seen[name] = d
		if help == "" || help == name || strings.HasSuffix(help, ".") {
			t.Errorf("%s: help %q", name, help)
		}
	}
	if s, h := NumDrops.String(), NumDrops.Help(); s != "unknown" || h != "" {
		t.Errorf("no drop: %q, %q", s, h)
	}
}

func TestCounters(t *testing.T) {
	var c Counters
	c.Add(Kept, 5)
	c.Add(NoSA, 0)
	c.Add(Replayed, 2)
	c.Add(Replayed, 1)
	c.Add(Truncated, 7)
	if c.Get(Kept) != 0 || c.Get(Replayed) != 3 {
		t.Errorf("kept %d, replayed %d", c.Get(Kept), c.Get(Replayed))
	}
	var order []Drop
	for d, n := range c.All() {
		order = append(order, d)
		if n != c.Get(d) {
			t.Errorf("%s: %d", d, n)
		}
	}
	if len(order) != 2 || order[0] != Truncated || order[1] != Replayed {
		t.Errorf("counted %v", order)
	}
	for range c.All() {
		break // must not panic
	}
}
