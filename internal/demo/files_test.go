package demo

import (
	"reflect"
	"regexp"
	"strings"
	"testing"

	"ipsecd/config"
)

// parse returns the SAs and the policies of a setkey file without their
// positions.
func parse(t *testing.T, text string) (adds []config.Add, policies []config.SPDAdd) {
	t.Helper()
	statements, err := config.Parse("demo.conf", []byte(text))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	for _, s := range statements {
		switch s := s.(type) {
		case config.Add:
			s.At = config.Pos{}
			adds = append(adds, s)
		case config.SPDAdd:
			s.At = config.Pos{}
			policies = append(policies, s)
		}
	}
	return adds, policies
}

// Both files hold the same SAs, and each policy of one stands in the other with
// the direction turned.
func TestSetkeyFilesMirrorEachOther(t *testing.T) {
	tunnels := tunnels()
	files := setkeyFiles(tunnels)
	addsA, policiesA := parse(t, files[0])
	addsB, policiesB := parse(t, files[1])
	if len(addsA) != 2*len(tunnels) || len(policiesA) != 2*len(tunnels) {
		t.Fatalf("%d SAs and %d policies for %d tunnels, want two each", len(addsA), len(policiesA), len(tunnels))
	}
	if !reflect.DeepEqual(addsA, addsB) {
		t.Errorf("SAs differ:\n%s\n%s", files[0], files[1])
	}
	for _, p := range policiesA {
		p.Dir = config.In + config.Out - p.Dir
		if !contains(policiesB, p) {
			t.Errorf("B lacks the counterpart of A's policy for %s > %s", p.Sel.Src, p.Sel.Dst)
		}
	}
}

func contains(policies []config.SPDAdd, want config.SPDAdd) bool {
	for _, p := range policies {
		if reflect.DeepEqual(p, want) {
			return true
		}
	}
	return false
}

// Every SA has a key of its own, and another in the next run.
func TestKeysAreNew(t *testing.T) {
	keys := regexp.MustCompile(`0x[0-9a-f]{64,}`)
	first, second := setkeyFiles(tunnels()), setkeyFiles(tunnels())
	found := append(keys.FindAllString(first[0], -1), keys.FindAllString(second[0], -1)...)
	if len(found) < 2*2*len(tunnels()) {
		t.Fatalf("%d keys", len(found))
	}
	seen := map[string]bool{}
	for _, k := range found {
		if seen[k] {
			t.Errorf("a key of %d digits appears twice", len(k))
		}
		seen[k] = true
	}
}

func TestFilesFitATerminal(t *testing.T) {
	files := setkeyFiles(tunnels())
	for _, line := range strings.Split(files[0]+files[1], "\n") {
		if len(line) > width-2 {
			t.Errorf("line of %d columns: %s", len(line), line)
		}
	}
}
