package netns

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// newNS makes a namespace that ends with the test.
func newNS(t *testing.T, name string) *NS {
	t.Helper()
	Need(t)
	ns, err := New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// here identifies the network namespace of the calling thread.
func here(t *testing.T) string {
	t.Helper()
	id, err := identify()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func identify() (string, error) {
	h, err := netns.Get()
	if err != nil {
		return "", err
	}
	defer h.Close()
	return h.UniqueId(), nil
}

func TestNewIsApartAndAnonymous(t *testing.T) {
	named := func() []os.DirEntry { d, _ := os.ReadDir("/run/netns"); return d }
	before := named()
	outside := here(t)
	ns := newNS(t, "host")
	var inside string
	var links []netlink.Link
	err := ns.Do(func() (err error) {
		if inside, err = identify(); err != nil {
			return err
		}
		links, err = netlink.LinkList()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if inside == outside {
		t.Error("Do ran outside")
	}
	if len(links) != 1 || links[0].Attrs().Name != "lo" || links[0].Attrs().Flags&net.FlagUp == 0 {
		t.Errorf("links inside: %v, want lo alone and up", links)
	}
	if after := named(); len(after) != len(before) {
		t.Errorf("/run/netns went from %v to %v", before, after)
	}
}

// Many namespaces come and go; no thread of this process stays inside one.
func TestThreadsDoNotLeak(t *testing.T) {
	Need(t)
	outside := here(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			ns, err := New("brief")
			if err != nil {
				t.Error(err)
				return
			}
			if err := ns.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	first, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for range 100 { // a thread's end follows its goroutine's
		if tasks = strangers(tasks, first); len(tasks) == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(tasks) != 0 {
		t.Errorf("threads %v are not in %s", tasks, first)
	}
	if now := here(t); now != outside {
		t.Errorf("the test went from %s to %s", outside, now)
	}
}

// strangers returns the live tasks that are in another namespace than that.
func strangers(tasks []os.DirEntry, that string) (others []os.DirEntry) {
	for _, task := range tasks {
		ns, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net")
		if err == nil && ns != that {
			others = append(others, task)
		}
	}
	return others
}

func TestDoReturnsItsError(t *testing.T) {
	ns := newNS(t, "host")
	cause := errors.New("cause")
	err := ns.Do(func() error { return cause })
	if !errors.Is(err, cause) || !strings.Contains(err.Error(), "host") {
		t.Errorf("Do: %v, want the cause and the name", err)
	}
}

func TestClosed(t *testing.T) {
	ns := newNS(t, "host")
	for range 2 {
		if err := ns.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := ns.Do(func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("Do after Close: %v, want %v", err, ErrClosed)
	}
}

func TestVethCarriesBothFamilies(t *testing.T) {
	a, b := newNS(t, "a"), newNS(t, "b")
	hostLinks, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	const mtu = 1400
	err = Veth(a, b, "wireA", "wireB",
		[]netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")},
		[]netip.Prefix{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::2/64")}, mtu)
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		ns   *NS
		name string
	}{{a, "wireA"}, {b, "wireB"}} {
		link, err := linkIn(end.ns, end.name)
		if err != nil {
			t.Fatal(err)
		}
		if got := link.Attrs().MTU; got != mtu {
			t.Errorf("MTU of %s is %d, want %d", end.name, got, mtu)
		}
	}
	for _, addr := range []string{"192.0.2.2", "2001:db8::2"} {
		t.Run(addr, func(t *testing.T) { talk(t, a, b, addr) })
	}
	after, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	if len(after) != len(hostLinks) {
		t.Errorf("links outside went from %d to %d", len(hostLinks), len(after))
	}
}

func linkIn(ns *NS, name string) (link netlink.Link, err error) {
	err = ns.Do(func() error {
		link, err = netlink.LinkByName(name)
		return err
	})
	return link, err
}

// talk sends a line from a to addr in b by TCP.
func talk(t *testing.T, a, b *NS, addr string) {
	l, err := b.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- err.Error()
			return
		}
		defer c.Close()
		text, _ := io.ReadAll(c)
		got <- string(text)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := a.Dial(ctx, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "hello")
	c.Close()
	if text := <-got; text != "hello" {
		t.Errorf("b received %q", text)
	}
}

func TestVethReportsABadName(t *testing.T) {
	a, b := newNS(t, "a"), newNS(t, "b")
	err := Veth(a, b, "a-name-longer-than-links-have", "wireB", nil, nil, 1500)
	if err == nil || !strings.Contains(err.Error(), "wireB") {
		t.Errorf("Veth: %v, want an error with the names", err)
	}
}

func TestCommandRunsInside(t *testing.T) {
	ns := newNS(t, "host")
	var out bytes.Buffer
	cmd := ns.Command(t.Context(), "cat", "/proc/self/net/dev")
	cmd.Stdout = &out
	if err := ns.Run(cmd); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), ":"); n != 1 {
		t.Errorf("the process sees %d links, want lo alone:\n%s", n, out.String())
	}
}

func TestCommandEndsWithItsContext(t *testing.T) {
	ns := newNS(t, "host")
	ctx, cancel := context.WithCancel(t.Context())
	cmd := ns.Command(ctx, "sleep", "1000")
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	cancel()
	wantSignal(t, cmd, syscall.SIGTERM)
}

// Closing the NS ends the thread that forked, thus its children.
func TestCommandEndsWithTheNamespace(t *testing.T) {
	ns := newNS(t, "host")
	cmd := ns.Command(t.Context(), "sleep", "1000")
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := ns.Close(); err != nil {
		t.Fatal(err)
	}
	wantSignal(t, cmd, syscall.SIGTERM)
}

func wantSignal(t *testing.T, cmd *exec.Cmd, want syscall.Signal) {
	t.Helper()
	_ = cmd.Wait() // the state tells more
	ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !ws.Signaled() || ws.Signal() != want {
		t.Errorf("process ended with %v, want %v", cmd.ProcessState, want)
	}
}
