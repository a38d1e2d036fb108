package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"ipsecd/internal/netns"
	"ipsecd/internal/pfclient"
	"ipsecd/pfkey"
)

const (
	wireMTU  = 1500
	wireLink = "wire0" // the link's name on both hosts
	tunLink  = "tun0"

	startLimit = 15 * time.Second // for an ipsecd to be ready
	logLines   = 20               // of an ipsecd's log, printed on failure
)

// host is one of the two: a namespace and the ipsecd in it.
type host struct {
	name  string // A or B
	ns    *netns.NS
	dir   string         // holds the setkey file, the control socket and the log
	inner []netip.Prefix // addresses of the TUN

	cmd    *exec.Cmd // nil until started
	cancel context.CancelFunc
	exited chan struct{} // closed when cmd was waited for
}

func (h *host) file() string { return filepath.Join(h.dir, "setkey.conf") }
func (h *host) log() string  { return filepath.Join(h.dir, "log") }

// build makes the hosts and the wire, and puts the watch on it.
func (d *demo) build(context.Context) (err error) {
	var wire [2][]netip.Prefix
	for i, name := range []string{"A", "B"} {
		h, err := newHost(name, d.dir)
		if err != nil {
			return err
		}
		d.hosts[i] = h
		for _, t := range d.tunnels {
			h.inner = append(h.inner, single(t.inner[i]))
		}
		v4, v6 := d.tunnels[0].outer[i], d.tunnels[1].outer[i]
		wire[i] = []netip.Prefix{netip.PrefixFrom(v4, 24), netip.PrefixFrom(v6, 64)}
		d.printf("  host %s  on the wire %s %s\n          in the tunnels %s\n", name, v4, v6, list(h.inner))
	}
	a, b := d.hosts[0].ns, d.hosts[1].ns
	if err := netns.Veth(a, b, wireLink, wireLink, wire[0], wire[1], wireMTU); err != nil {
		return err
	}
	d.watch, err = startWatch(a, wireLink)
	return err
}

func newHost(name, dir string) (*host, error) {
	h := &host{name: name, dir: filepath.Join(dir, name), exited: make(chan struct{})}
	if err := os.Mkdir(h.dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	h.ns, err = netns.New(name)
	return h, err
}

func list(prefixes []netip.Prefix) string {
	var words []string
	for _, p := range prefixes {
		words = append(words, p.Addr().String())
	}
	return strings.Join(words, " ")
}

// configure writes and prints the setkey files.
func (d *demo) configure(context.Context) error {
	for i, text := range setkeyFiles(d.tunnels) {
		h := d.hosts[i]
		if err := os.WriteFile(h.file(), []byte(text), 0o600); err != nil {
			return err
		}
		if i > 0 {
			d.printf("\n")
		}
		d.printf("  --- host %s: %s\n", h.name, h.file())
		for line := range strings.Lines(text) {
			d.printf("  %s", line)
		}
	}
	return nil
}

// start starts both daemons and waits until they are ready.
func (d *demo) start(ctx context.Context) error {
	for _, h := range d.hosts {
		args := h.args()
		d.printf("  %s$ ipsecd %s", h.name, strings.TrimLeft(wrap(strings.Join(args, " "), "      "), " "))
		if err := h.start(ctx, d.exe, args); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, fmt.Errorf("not ready after %v", startLimit))
	defer cancel()
	for _, h := range d.hosts {
		if err := h.ready(ctx); err != nil {
			return fmt.Errorf("ipsecd of host %s: %w", h.name, err)
		}
	}
	d.printf("  both answer on their control sockets\n")
	return nil
}

// args are the arguments of the host's ipsecd.
func (h *host) args() []string {
	args := []string{"run", "-f", h.file(), "--run-dir", h.dir, "--tun", tunLink, "--natt", fmt.Sprint(nattPort)}
	for _, p := range h.inner {
		args = append(args, "--addr", p.String())
	}
	return args
}

// start starts the host's ipsecd. It outlives ctx: stop ends it.
func (h *host) start(ctx context.Context, exe string, args []string) error {
	log, err := os.Create(h.log())
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own copy
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cmd := h.ns.Command(ctx, exe, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := h.ns.Start(cmd); err != nil {
		cancel()
		return err
	}
	h.cmd, h.cancel = cmd, cancel
	go func() {
		defer close(h.exited)
		_ = cmd.Wait() // ProcessState has the outcome
	}()
	return nil
}

// ready waits until the control socket answers that policies are installed.
func (h *host) ready(ctx context.Context) error {
	for {
		err := hasPolicies(ctx, filepath.Join(h.dir, "control.sock"))
		if err == nil {
			return nil
		}
		select {
		case <-h.exited:
			return fmt.Errorf("it ended: %v", h.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// hasPolicies asks the daemon behind the control socket for its SPD and returns
// nil when a policy comes back.
func hasPolicies(ctx context.Context, socket string) error {
	c, err := pfclient.Dial(socket)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	policies, err := c.Do(&pfkey.Message{Type: pfkey.SPDDUMP})
	if err == nil && len(policies) == 0 {
		return errors.New("it has no policies")
	}
	return err
}

// stop ends the daemons that run: SIGTERM to both, SIGKILL to one that takes too
// long. A daemon that does not end cleanly by itself is an error.
func (d *demo) stop() error {
	var errs []error
	for _, h := range d.hosts {
		if h != nil && h.cmd != nil {
			h.cancel()
		}
	}
	for _, h := range d.hosts {
		if h == nil || h.cmd == nil {
			continue
		}
		<-h.exited
		d.printf("  ipsecd of host %s: %v\n", h.name, h.cmd.ProcessState)
		if !h.cmd.ProcessState.Success() {
			errs = append(errs, fmt.Errorf("ipsecd of host %s did not end cleanly: %v", h.name, h.cmd.ProcessState))
		}
	}
	return errors.Join(errs...)
}

// printLogs prints the last lines that each daemon logged.
func (d *demo) printLogs() {
	for _, h := range d.hosts {
		if h == nil || h.cmd == nil {
			continue
		}
		text, err := os.ReadFile(h.log())
		if err != nil {
			d.printf("\n%v\n", err)
			continue
		}
		d.printf("\nEnd of the log of host %s:\n", h.name)
		lines := bytes.SplitAfter(text, []byte("\n"))
		for _, line := range lines[max(0, len(lines)-logLines):] {
			if len(line) > 0 {
				d.printf("  %s| %s", h.name, line)
			}
		}
	}
}

// framesOnWire counts the frames that the host sent to the wire and received
// from it. A segmentation offload's frame counts as one.
func (h *host) framesOnWire() (frames uint64, err error) {
	err = h.ns.Do(func() error {
		link, err := netlink.LinkByName(wireLink)
		if err != nil {
			return err
		}
		stats := link.Attrs().Statistics
		if stats == nil {
			return io.ErrUnexpectedEOF
		}
		frames = stats.RxPackets + stats.TxPackets
		return nil
	})
	return frames, err
}
