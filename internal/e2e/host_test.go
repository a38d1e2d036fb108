package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ipsecd/internal/netns"
)

// The programs under test, built once by TestMain.
var ipsecd, setkey string

func TestMain(m *testing.M) {
	os.Exit(netns.Main(func() int {
		dir, err := os.MkdirTemp("", "ipsecd-e2e-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil { // some tests run it as another user
			panic(err)
		}
		if err := build(dir); err != nil {
			panic(err)
		}
		ipsecd, setkey = filepath.Join(dir, "ipsecd"), filepath.Join(dir, "setkey")
		return m.Run()
	}))
}

// build builds setkey, and ipsecd with the race detector if the test has it.
func build(dir string) error {
	for _, program := range []string{"setkey", "ipsecd"} {
		cmd := exec.Command("go", "build", "-o", dir, "ipsecd/cmd/"+program)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if raceDetector && program == "ipsecd" {
			cmd = exec.Command("go", "build", "-race", "-o", dir, "ipsecd/cmd/"+program)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", cmd, err, out)
		}
	}
	return nil
}

const (
	patience = 8 * time.Second // for what takes milliseconds
	wireName = "wire0"
)

// host is a namespace with a wire and, once started, an ipsecd.
type host struct {
	*testing.T
	name string
	ns   *netns.NS
	dir  string

	cmd *exec.Cmd
	log *output
}

// output collects what a process writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// newPair makes hosts A and B with a wire between them: 198.51.100.1 and .2,
// fd00:1::1 and ::2.
func newPair(t *testing.T) (a, b *host) {
	t.Helper()
	netns.Need(t)
	a, b = newHost(t, "A"), newHost(t, "B")
	err := netns.Veth(a.ns, b.ns, wireName, wireName, prefixes("198.51.100.1/24", "fd00:1::1/64"),
		prefixes("198.51.100.2/24", "fd00:1::2/64"), 1500)
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func newHost(t *testing.T, name string) *host {
	t.Helper()
	ns, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{T: t, name: name, ns: ns, dir: t.TempDir()}
	t.Cleanup(func() {
		h.stop()
		if t.Failed() && h.log != nil {
			t.Logf("host %s, its ipsecd:\n%s", name, h.log)
		}
		ns.Close()
	})
	return h
}

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, s := range texts {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

// file writes a setkey file of the host and returns its path.
func (h *host) file(name, text string) string {
	h.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.Fatal(err)
	}
	return path
}

func (h *host) socket() string { return filepath.Join(h.dir, "run", "control.sock") }

// launch starts ipsecd run and does not wait.
func (h *host) launch(args ...string) {
	h.Helper()
	args = append([]string{"run", "--run-dir", filepath.Join(h.dir, "run"), "--tun", "tun0"}, args...)
	h.log = new(output)
	h.cmd = h.ns.Command(context.Background(), ipsecd, args...)
	h.cmd.Stdout, h.cmd.Stderr = h.log, h.log
	if err := h.ns.Start(h.cmd); err != nil {
		h.Fatal(err)
	}
}

// start starts ipsecd run and waits until it is ready.
func (h *host) start(args ...string) {
	h.Helper()
	h.launch(args...)
	h.eventually("ready", func() bool { return strings.Contains(h.log.String(), "msg=ready") })
}

// eventually waits until ok.
func (h *host) eventually(what string, ok func() bool) {
	h.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			log := ""
			if h.log != nil {
				log = h.log.String()
			}
			h.Fatalf("host %s: not %s after %v; its log:\n%s", h.name, what, patience, log)
		}
	}
}

// stop ends ipsecd as a service manager does and returns its exit status.
func (h *host) stop() int {
	h.Helper()
	if h.cmd == nil {
		return 0
	}
	h.cmd.Process.Signal(syscall.SIGTERM)
	return h.wait()
}

// kill ends it without a chance to clean up.
func (h *host) kill() {
	h.Helper()
	h.cmd.Process.Kill()
	h.wait()
}

func (h *host) wait() int {
	h.Helper()
	done := make(chan error, 1)
	cmd := h.cmd
	h.cmd = nil
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(patience):
		cmd.Process.Kill()
		h.Errorf("host %s: ipsecd did not end; its log:\n%s", h.name, h.log)
		<-done
	}
	for _, bad := range []string{"panic:", "DATA RACE"} {
		if strings.Contains(h.log.String(), bad) {
			h.Errorf("host %s: %s in ipsecd:\n%s", h.name, bad, h.log)
		}
	}
	return cmd.ProcessState.ExitCode()
}

// run runs a program inside the namespace and returns what it printed and its
// exit status.
func (h *host) run(name string, args ...string) (string, int) {
	h.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out output
	cmd := h.ns.Command(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := h.ns.Run(cmd)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.Fatalf("%s %v: %v", name, args, err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// setkey runs setkey against this host's ipsecd.
func (h *host) setkey(args ...string) (string, int) {
	h.Helper()
	return h.run(setkey, append([]string{"-S", h.socket()}, args...)...)
}

// mustSetkey is setkey that succeeds.
func (h *host) mustSetkey(args ...string) string {
	h.Helper()
	out, code := h.setkey(args...)
	if code != 0 {
		h.Fatalf("host %s: setkey %v exits %d: %s", h.name, args, code, out)
	}
	return out
}
