package routes

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// holderEnv names the link for which a test process holds the table.
const holderEnv = "ROUTES_TEST_HOLDER"

// A second instance starts neither beside one with routes nor beside one that
// has none yet, and leaves it as it was.
func TestSecondInstance(t *testing.T) {
	h := newWiredHost(t)
	h.tun("ipsec1")
	h.do(func() error { return SetupLink("ipsec1", 1400, nil, 0, 0) })
	first := h.start(Config{Link: "ipsec1"})
	rules := len(h.rules())
	refused := func() {
		t.Helper()
		err := h.ns.Do(func() error {
			_, err := New(Config{Link: "ipsec0", Mark: testMark})
			return err
		})
		want := "another ipsecd of this network namespace routes by table 26992; stop it, or run this one with --routes off"
		if !errors.Is(err, ErrTableInUse) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
		if got := len(h.rules()); got != rules {
			t.Errorf("%d rules, want %d as before", got, rules)
		}
	}
	refused()
	h.apply(first, []Route{protected("10.1.0.0/16", "10.2.0.0/16")})
	refused()
	h.wantTable("10.2.0.0/16 dev ipsec1")

	// Another namespace has a table of its own.
	newWiredHost(t).start(Config{Link: "ipsec0"})

	if err := first.Close(); err != nil {
		t.Error(err)
	}
	h.start(Config{Link: "ipsec0"})
}

// A New that fails does not keep the table.
func TestLockAfterError(t *testing.T) {
	h := newWiredHost(t)
	if err := h.ns.Do(func() error { _, err := New(Config{Link: "nolink", Mark: testMark}); return err }); err == nil {
		t.Error("made without a link")
	}
	h.start(Config{Link: "ipsec0"})
}

// A killed process leaves its rules and routes, but not the lock, and whoever
// comes next takes them over, though the link they lead to lives on.
func TestKilledProcess(t *testing.T) {
	h := newWiredHost(t)
	h.tun("ipsec1")
	h.do(func() error { return SetupLink("ipsec1", 1400, nil, 0, 0) })
	bare := len(h.rules())
	holder := h.ns.Command(context.Background(), os.Args[0], "-test.run=^TestHolder$")
	holder.Env = append(os.Environ(), holderEnv+"=ipsec1")
	holder.Stderr = os.Stderr
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := h.ns.Start(holder); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { holder.Process.Kill() })
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatalf("the other process ended early: %v", err)
	}
	err = h.ns.Do(func() error { _, err := New(Config{Link: "ipsec0", Mark: testMark}); return err })
	if !errors.Is(err, ErrTableInUse) {
		t.Errorf("beside another process: %v", err)
	}

	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := holder.Wait(); !errors.As(err, &exit) {
		t.Fatalf("the other process ended with %v, want its death", err)
	}
	h.wantTable("10.2.0.0/16 dev ipsec1")
	m := h.start(Config{Link: "ipsec0"})
	h.wantTable()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if got := len(h.rules()); got != bare {
		t.Errorf("%d rules after Close, want %d", got, bare)
	}
}

// TestHolder is the other process of TestKilledProcess: it holds the table until
// it is killed, or its test goes away.
func TestHolder(t *testing.T) {
	link := os.Getenv(holderEnv)
	if link == "" {
		return // an ordinary run
	}
	m, err := New(Config{Link: link, Mark: testMark})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Apply([]Route{protected("10.1.0.0/16", "10.2.0.0/16")}, nil, 0); err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("+")
	io.Copy(io.Discard, os.Stdin)
}
