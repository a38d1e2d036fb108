package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What keeps ipsecd or setkey from starting is said in one line, with exit
// status 1, and leaves nothing behind.
func TestStartErrors(t *testing.T) {
	a, _ := newPair(t)
	before := a.network()
	runDir := filepath.Join(a.dir, "run")
	bad := a.file("bad.conf", "flush;\nadd 192.0.2.1 192.0.2.2 esp 0x1000 -E aes-gmc-16 0x00;\n")
	clash := a.file("clash.conf", strings.Repeat("spdadd 10.1.0.0/16 10.2.0.0/16 any -P out discard;\n", 2))
	a.start()
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"second ipsecd", []string{ipsecd, "run", "--run-dir", runDir, "--tun", "tun1"}, "another ipsecd answers on " + a.socket()},
		{"TUN name in use", []string{ipsecd, "run", "--run-dir", runDir + "2", "--tun", "tun0"}, "TUN name tun0 is in use"},
		{"name of another link", []string{ipsecd, "run", "--run-dir", runDir + "2", "--tun", wireName}, "TUN name wire0 is in use"},
		{"port in use", []string{ipsecd, "run", "--run-dir", runDir + "2", "--tun", "tun1"}, "UDP port 4500"},
		{"no file", []string{ipsecd, "run", "--run-dir", runDir + "2", "-f", "/nonexistent"}, "/nonexistent"},
		{"bad file", []string{ipsecd, "run", "--run-dir", runDir + "2", "-f", bad}, bad + ":2:"},
		{"file that contradicts itself", []string{ipsecd, "run", "--run-dir", runDir + "2", "-f", clash}, clash + ":2:1"},
		{"MTU", []string{ipsecd, "run", "--mtu", "10"}, "--mtu 10: it is from"},
		{"MTU that is no number", []string{ipsecd, "run", "--mtu", "big"}, "ipsecd: --mtu big: it is from 576 to 65535"},
		{"port", []string{ipsecd, "run", "--natt", "70000"}, "ipsecd: --natt 70000: it is a port from 0 to 65535"},
		{"mark", []string{ipsecd, "run", "--mark=-1"}, "ipsecd: --mark -1: it is a number from 1 to 4294967295"},
		{"address", []string{ipsecd, "run", "--addr", "10.0.0.300/8"}, "--addr 10.0.0.300/8"},
		{"address of no host", []string{ipsecd, "run", "--addr", "224.0.0.1/24"}, "--addr 224.0.0.1/24: no host has that address"},
		{"routes", []string{ipsecd, "run", "--routes", "perhaps"}, "--routes perhaps: it is auto or off"},
		{"flag", []string{ipsecd, "run", "--colour"}, "--colour"},
		{"dead socket", []string{setkey, "-S", filepath.Join(a.dir, "nobody"), "-D"}, "is it running?"},
		{"setkey's bad file", []string{setkey, "-S", a.socket(), "-f", bad}, bad + ":2:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, code := a.run(c.args[0], c.args[1:]...)
			if code != 1 || !strings.Contains(out, c.want) || strings.Count(strings.TrimSpace(out), "\n") != 0 {
				t.Errorf("exit %d, printed %q; want one line with %q", code, out, c.want)
			}
		})
	}
	if out := a.mustSetkey("-D"); out != "No SAD entries.\n" {
		t.Errorf("the bad files left %q", out)
	}
	a.stop()
	if after := a.network(); after != before {
		t.Errorf("the network is not what it was:\n%s\nbut:\n%s", before, after)
	}
}

// An ordinary user, and a machine without TUN, are told what is missing.
func TestMissingPrivilege(t *testing.T) {
	a, _ := newPair(t)
	if ids, err := os.ReadFile("/proc/self/uid_map"); err != nil || strings.Fields(string(ids))[2] == "1" {
		t.Skip("in a user namespace of one user nobody can become another")
	}
	os.Chmod(a.dir, 0o755)
	out, code := a.runAs(65534, ipsecd, "run", "--run-dir", "/tmp/ipsecd-e2e-"+filepath.Base(a.dir))
	defer os.RemoveAll("/tmp/ipsecd-e2e-" + filepath.Base(a.dir))
	if code != 1 || !strings.Contains(out, "/dev/net/tun") && !strings.Contains(out, "CAP_NET_ADMIN") || strings.Count(strings.TrimSpace(out), "\n") != 0 {
		t.Errorf("exit %d, printed %q; want one line that names what is missing", code, out)
	}
	t.Log(strings.TrimSpace(out))
}

// A clean end takes everything back, on either signal.
func TestCleanEnd(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			a, b := newPair(t)
			before := a.network()
			startTunnels(a, b, tunnels...)
			if during := a.network(); during == before {
				t.Fatal("the test does not see what ipsecd does to the network")
			}
			a.cmd.Process.Signal(signal)
			if code := a.wait(); code != 0 {
				t.Errorf("exit %d; log:\n%s", code, a.log)
			}
			if after := a.network(); after != before {
				t.Errorf("the network is not what it was:\n%s\nbut:\n%s", before, after)
			}
			if _, err := os.Stat(a.socket()); err == nil {
				t.Error("the socket is still there")
			}
		})
	}
}

// What is on its way when ipsecd is told to end is no trouble to report.
func TestCleanEndUnderLoad(t *testing.T) {
	a, b := newPair(t)
	tun := tunnels[0]
	startTunnels(a, b, tun)
	server := packetConn(t, a, net.JoinHostPort(tun.innerA, "9"))
	defer server.Close()
	client := packetConn(t, b, net.JoinHostPort(tun.innerB, "0"))
	defer client.Close()
	done, sent := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sent)
		for {
			select {
			case <-done:
				return
			default:
				client.WriteTo(make([]byte, 100), server.LocalAddr())
			}
		}
	}()
	defer func() { close(done); <-sent }()
	if _, _, err := server.ReadFrom(make([]byte, 200)); err != nil {
		t.Fatal(err)
	}
	if code := a.stop(); code != 0 || strings.Contains(a.log.String(), "not-delivered") {
		t.Errorf("exit %d; log:\n%s", code, a.log)
	}
}

// A running ipsecd has CAP_NET_ADMIN and CAP_NET_RAW, bits 12 and 13, alone, on
// every thread.
func TestPrivileges(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector needs cgo, and a program with cgo cannot reach all of its threads")
	}
	a, _ := newPair(t)
	a.start()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", a.cmd.Process.Pid))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("%d threads: %v", len(tasks), err)
	}
	for _, path := range tasks {
		status, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, set := range []string{"CapEff", "CapPrm"} {
			if !strings.Contains(string(status), set+":\t0000000000003000\n") {
				t.Errorf("%s: %s is not CAP_NET_ADMIN and CAP_NET_RAW:\n%s", path, set, status)
			}
		}
	}
}

// After kill -9 the next start finds its way and leaves nothing either.
func TestStartAfterKill(t *testing.T) {
	a, b := newPair(t)
	before := a.network()
	tun := tunnels[0]
	fileA, _ := startTunnels(a, b, tun)
	a.kill()
	a.start(append(addrs("A", tun), "-f", fileA)...)
	b.mustSetkey("-f", filepath.Join(b.dir, "setkey.conf")) // a new window for new numbers
	if !ask(t, a, b, tun.innerA, tun.innerB, patience) {
		t.Error("no answer after the restart")
	}
	a.stop()
	if after := a.network(); after != before {
		t.Errorf("the network is not what it was:\n%s\nbut:\n%s", before, after)
	}
}

// Strict reverse-path filtering looks the sender of inbound ESP up in our
// table, where the peer's own address is protected.
func TestStrictReversePath(t *testing.T) {
	for _, port := range []string{"", "[4500]"} {
		t.Run("ports "+port, func(t *testing.T) {
			a, b := newPair(t)
			a.setRPFilters(1)
			b.setRPFilters(1)
			// Everything is protected, the peer's own address with it.
			tun := tunnel{"", "198.51.100.1", "198.51.100.2", "10.1.1.1", "10.2.1.1", port, gcm, 1}
			everything := func(end, own, peer string) string {
				return script(end, tun) + "spdadd 0.0.0.0/0 0.0.0.0/0 any -P out ipsec esp/tunnel/" + own + "-" + peer + "/unique:1;\n"
			}
			a.start("--addr", tun.innerA, "-f", a.file("setkey.conf", everything("A", tun.outerA, tun.outerB)))
			b.start("--addr", tun.innerB, "-f", b.file("setkey.conf", everything("B", tun.outerB, tun.outerA)))
			if !ask(t, a, b, tun.innerA, tun.innerB, patience) {
				t.Errorf("no answer; logs:\n%s\n%s", a.log, b.log)
			}
		})
	}
}

// network is the state of links, rules, routes and filters as text, but for what the
// kernel makes of the wire's link-local address, which takes it a second or two.
func (h *host) network() string {
	h.Helper()
	var all []string
	for _, args := range [][]string{
		{"-o", "link"}, {"-4", "rule"}, {"-6", "rule"},
		{"-4", "route", "show", "table", "all"}, {"-6", "route", "show", "table", "all"},
	} {
		out, code := h.run("ip", args...)
		if code != 0 {
			h.Fatalf("ip %v: %s", args, out)
		}
		for line := range strings.Lines(out) {
			if !strings.Contains(line, "fe80:") {
				all = append(all, line)
			}
		}
	}
	filters, _ := h.run("sh", "-c", "grep . /proc/sys/net/ipv4/conf/*/rp_filter")
	return strings.Join(all, "") + filters
}

// runAs is run as another user.
func (h *host) runAs(uid uint32, name string, args ...string) (string, int) {
	h.Helper()
	var out output
	cmd := h.ns.Command(h.Context(), name, args...)
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: uid}
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := h.ns.Start(cmd); err != nil {
		h.Fatal(err)
	}
	done := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer done.Stop()
	cmd.Wait()
	return out.String(), cmd.ProcessState.ExitCode()
}
