package imports

import (
	"flag"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/ipsecd-links.txt anew")

// everything as an entry allows all packages of ours: commands wire things up.
const everything = "*"

// allowed is, for every package of the module, what it may import of ours. What
// stands under internal/ is glue for the commands, unless a line here gives it
// to somebody else. Tests are free: they may join what they test with anything.
var allowed = map[string][]string{
	"packet":              {},
	"crypto/alg":          {},
	"crypto":              {"crypto/alg"},
	"sad/replay":          {},
	"sad":                 {"crypto", "packet", "sad/replay"},
	"spd":                 {"packet"},
	"spd/internal/golden": {"packet", "spd"},

	"dataplane/xform": {"packet", "sad", "crypto"},
	"dataplane/link":  {"packet"},
	"dataplane":       {"packet", "sad", "spd", "dataplane/xform", "dataplane/link"},

	"config":           {"crypto/alg"},
	"pfkey":            {"crypto/alg"},
	"internal/command": {"config", "pfkey"},
	"control":          {"internal/command", "config", "pfkey", "sad", "spd", "crypto", "crypto/alg"},

	"internal/pfclient":              {"pfkey"},
	"internal/pfclient/pfclienttest": {"pfkey"},
	"internal/setkeyfmt":             {"config", "pfkey", "crypto/alg"},
	"internal/routes":                {},
	"internal/netns":                 {},
	"internal/demo":                  {"internal/netns", "internal/pfclient", "pfkey"},
	"internal/imports":               {},
	"internal/e2e":                   {},

	"cmd/ipsecd": {everything},
	"cmd/setkey": {everything},
}

// goList runs go list at the root of the module and returns the lines of its
// answer.
func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "GOOS=linux")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return strings.Fields(string(out))
}

// imports returns, for every package of ours, what it imports of ours; names are
// without the module's.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	for _, line := range goList(t, "-f", `{{.ImportPath}}{{range .Imports}},{{.}}{{end}}`, "./...") {
		names := strings.Split(line, ",")
		importer := strings.TrimPrefix(names[0], "ipsecd/")
		found[importer] = nil
		for _, name := range names[1:] {
			if ours, ok := strings.CutPrefix(name, "ipsecd/"); ok {
				found[importer] = append(found[importer], ours)
			}
		}
	}
	return found
}

func TestDirections(t *testing.T) {
	found := imports(t)
	for importer, imported := range found {
		may, listed := allowed[importer]
		if !listed {
			t.Errorf("%s is not in the table: say there what it may import", importer)
			continue
		}
		for _, name := range imported {
			if !slices.Contains(may, name) && !slices.Contains(may, everything) {
				t.Errorf("%s must not import %s; it may import %q", importer, name, may)
			}
		}
	}
	for importer := range allowed {
		if _, exists := found[importer]; !exists {
			t.Errorf("%s is in the table but not in the tree", importer)
		}
	}
}

// The table itself has no way round: nothing reaches itself.
func TestTableHasNoCycle(t *testing.T) {
	var visit func(name string, path []string)
	visit = func(name string, path []string) {
		if slices.Contains(path, name) {
			t.Fatalf("cycle: %s", strings.Join(append(path, name), " > "))
		}
		for _, next := range allowed[name] {
			visit(next, append(path, name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(allowed)) {
		visit(name, nil)
	}
}

const linkedFile = "testdata/ipsecd-links.txt"

// TestLinkedPackages compares the packages of others that cmd/ipsecd links with
// the list in testdata. Run with -update after a decision for a new one, and give
// its module's reason in docs/dependencies.md.
func TestLinkedPackages(t *testing.T) {
	linked := goList(t, "-deps", "-f", `{{with .Module}}{{if not .Main}}{{$.ImportPath}}{{end}}{{end}}`, "./cmd/ipsecd")
	slices.Sort(linked)
	if *update {
		if err := os.WriteFile(linkedFile, []byte(strings.Join(linked, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(linkedFile)
	if err != nil {
		t.Fatal(err)
	}
	listed := strings.Fields(string(text))
	for _, name := range linked {
		if !slices.Contains(listed, name) {
			t.Errorf("ipsecd links %s, which is not in %s", name, linkedFile)
		}
	}
	for _, name := range listed {
		if !slices.Contains(linked, name) {
			t.Errorf("%s lists %s, which ipsecd does not link", linkedFile, name)
		}
	}
}
