package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"ipsecd/internal/netns"
)

// playEnv makes this test binary play an ipsecd of some behaviour.
const playEnv = "DEMO_TEST_PLAY"

func TestMain(m *testing.M) {
	switch os.Getenv(playEnv) {
	case "":
		os.Exit(netns.Main(m.Run))
	case "fails":
		fmt.Println("no reason given")
		os.Exit(3)
	case "never ready":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		os.WriteFile(filepath.Join(os.Getenv("TMPDIR"), fmt.Sprint("pid-", os.Getpid())), nil, 0o600)
		<-stop
		os.Exit(0)
	}
}

// wired returns two hosts joined by a plain wire.
func wired(t *testing.T) (a, b *netns.NS) {
	t.Helper()
	netns.Need(t)
	var hosts [2]*netns.NS
	for i, name := range []string{"a", "b"} {
		ns, err := netns.New(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		hosts[i] = ns
	}
	err := netns.Veth(hosts[0], hosts[1], wireLink, wireLink,
		[]netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")},
		[]netip.Prefix{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::2/64")}, wireMTU)
	if err != nil {
		t.Fatal(err)
	}
	return hosts[0], hosts[1]
}

func TestPing(t *testing.T) {
	a, _ := wired(t)
	for _, tt := range []struct{ from, to string }{
		{"192.0.2.1", "192.0.2.2"},
		{"2001:db8::1", "2001:db8::2"},
	} {
		t.Run(tt.to, func(t *testing.T) {
			t.Parallel()
			p, err := newPinger(a, netip.MustParseAddr(tt.from), netip.MustParseAddr(tt.to))
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			var out strings.Builder
			if err := p.run(t.Context(), &out); err != nil {
				t.Error(err)
			}
			if want := "5 packets transmitted, 5 received, 0% packet loss, rtt "; !strings.Contains(out.String(), want) {
				t.Errorf("output lacks %q:\n%s", want, out.String())
			}
		})
	}
}

func TestPingReportsLoss(t *testing.T) {
	t.Parallel() // it waits for what never comes
	a, _ := wired(t)
	p, err := newPinger(a, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.99"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var out strings.Builder
	if err := p.run(t.Context(), &out); err == nil || !strings.Contains(out.String(), "100% packet loss") {
		t.Errorf("error %v, output:\n%s", err, out.String())
	}
}

func TestPingStops(t *testing.T) {
	a, _ := wired(t)
	p, err := newPinger(a, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.99"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out strings.Builder
	if err := p.run(ctx, &out); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
}

func TestTransfer(t *testing.T) {
	a, b := wired(t)
	for _, octets := range []int64{1, blockSize, 5*blockSize + 17} {
		for _, addr := range []string{"192.0.2.2", "2001:db8::2"} {
			r, err := transfer(t.Context(), a, b, netip.MustParseAddr(addr), octets)
			if err != nil {
				t.Fatal(err)
			}
			if r.sent != r.received || r.sent.octets != octets {
				t.Errorf("sent %+v, received %+v, want %d octets", r.sent, r.received, octets)
			}
		}
	}
}

func TestTransferStops(t *testing.T) {
	a, b := wired(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := transfer(ctx, a, b, netip.MustParseAddr("192.0.2.2"), 1<<50); err == nil {
		t.Error("a transfer without end ended well")
	}
	if _, err := transfer(t.Context(), a, b, netip.MustParseAddr("198.51.100.1"), 1); err == nil {
		t.Error("a transfer to an address that is not there ended well")
	}
}

// No two blocks are equal, thus no piece of the stream can stand for another.
func TestSendNumbersItsBlocks(t *testing.T) {
	var data bytes.Buffer
	if _, err := send(&data, 3*blockSize); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for data.Len() > 0 {
		seen[string(data.Next(blockSize))] = true
	}
	if len(seen) != 3 {
		t.Errorf("%d different blocks of 3", len(seen))
	}
}

func TestWatchSeesWhatIsInTheClear(t *testing.T) {
	a, b := wired(t)
	w, err := startWatch(a, wireLink)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transfer(t.Context(), a, b, netip.MustParseAddr("192.0.2.2"), 1000); err != nil {
		t.Fatal(err)
	}
	seen, err := w.close()
	if err != nil {
		t.Fatal(err)
	}
	if seen.frames == 0 || len(seen.lines) == 0 || seen.judge() == nil {
		t.Fatalf("the watch saw %+v, judged %v", seen, seen.judge())
	}
	for _, line := range seen.lines {
		if !strings.Contains(line, "192.0.2.1 > 192.0.2.2: Ethernet/IPv4/TCP") &&
			!strings.Contains(line, "192.0.2.2 > 192.0.2.1: Ethernet/IPv4/TCP") {
			t.Errorf("line %q", line)
		}
	}
}

// What resolves neighbours is no violation.
func TestWatchIsQuiet(t *testing.T) {
	a, _ := wired(t)
	w, err := startWatch(a, wireLink)
	if err != nil {
		t.Fatal(err)
	}
	s, err := startSample(a, wireLink)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"192.0.2.99:4500", "[2001:db8::99]:4500"} { // asks for a neighbour
		c, err := a.Dial(t.Context(), "udp", to)
		if err != nil {
			t.Fatal(err)
		}
		c.Write(espPayload)
		c.Close()
	}
	s.close()
	seen, err := w.close()
	if err != nil {
		t.Fatal(err)
	}
	if err := seen.judge(); err != nil {
		t.Errorf("%v: %q", err, seen.lines)
	}
}

func TestSampleDescribesFrames(t *testing.T) {
	a, b := wired(t)
	err := b.Do(func() error { // else B refuses what comes
		l, err := net.ListenPacket("udp", "192.0.2.2:4500")
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := startSample(a, wireLink)
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Dial(t.Context(), "udp", "192.0.2.2:4500")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range sampleFrames {
		c.Write(espPayload)
	}
	<-s.done
	if s.err != nil || len(s.lines) == 0 {
		t.Fatalf("sample: %v, %q", s.err, s.lines)
	}
	for _, line := range s.lines {
		if !strings.Contains(line, "> 192.0.2.2.4500: UDP ESP spi 0x1001 seq 1 len 36: 11121314..") {
			t.Errorf("line %q", line)
		}
	}
}

func TestFrameLine(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	for _, tt := range []struct {
		frame []byte
		want  string
	}{
		{v4(t, layers.IPProtocolESP, espPayload),
			"03:04:05.678 192.0.2.1 > 192.0.2.1: ESP spi 0x1001 seq 1 len 36: 11121314.."},
		{v6(t, layers.IPProtocolESP, espPayload),
			"03:04:05.678 2001:db8::1 > 2001:db8::1: ESP spi 0x1001 seq 1 len 36: 11121314.."},
		{v4(t, layers.IPProtocolUDP, udp(4500, 4500)),
			"03:04:05.678 192.0.2.1.4500 > 192.0.2.1.4500: UDP no ESP, 0 octets"},
	} {
		if got := frameLine(at, tt.frame); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
	whole := v4(t, layers.IPProtocolESP, espPayload)
	for n := range whole { // whatever is cut short is described somehow
		if frameLine(at, whole[:n]) == "" {
			t.Errorf("no line for %d octets", n)
		}
	}
}

// A sample's longest line fits.
func TestSampleFits(t *testing.T) {
	train := v4(t, layers.IPProtocolUDP, udp(4500, 4500), espPayload, gopacket.Payload(make([]byte, 9000)))
	line := frameLine(time.Now(), train)
	if len(line) > width-2 || !strings.Contains(line, "*") {
		t.Errorf("%d columns: %s", len(line), line)
	}
}

// run runs the demo with a daemon that plays the part, and returns what it said.
// Nothing may be left in the directory for temporary files.
func run(t *testing.T, ctx context.Context, part string) (string, error) {
	t.Helper()
	netns.Need(t)
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv(playEnv, part)
	var out strings.Builder
	err := Run(ctx, &out, Options{Bytes: 1})
	left, globErr := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "ipsecd-demo-*"))
	if globErr != nil || len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return out.String(), err
}

func TestDemoReportsADaemonThatFails(t *testing.T) {
	out, err := run(t, t.Context(), "fails")
	if err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error %v", err)
	}
	if !strings.Contains(out, "A| no reason given\n") {
		t.Errorf("the log is missing:\n%s", out)
	}
}

func TestDemoStopsInTheMiddle(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(500*time.Millisecond, func() { cancel(errors.New("enough")) })
	out, err := run(t, ctx, "never ready")
	if err == nil || err.Error() != "demo stopped: enough" {
		t.Errorf("error %v in\n%s", err, out)
	}
	pids, _ := filepath.Glob(filepath.Join(os.Getenv("TMPDIR"), "pid-*"))
	if len(pids) != 2 {
		t.Errorf("%d daemons had been started, want 2:\n%s", len(pids), out)
	}
	for _, file := range pids {
		_, pid, _ := strings.Cut(filepath.Base(file), "-")
		if _, err := os.Stat("/proc/" + pid); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("process %s: %v", pid, err)
		}
	}
}

func TestWrap(t *testing.T) {
	text := wrap(strings.Repeat("word ", 50), "    ")
	for line := range strings.Lines(text) {
		if len(line)-1 > width || !strings.HasPrefix(line, "    word") {
			t.Errorf("line %q", line)
		}
	}
	if got := len(strings.Fields(text)); got != 50 {
		t.Errorf("%d words of 50", got)
	}
}
