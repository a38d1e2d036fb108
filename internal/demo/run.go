// Package demo is `ipsecd demo`: two hosts on one machine, TCP between them
// through ESP, and a look at the wire.
//
// The hosts are anonymous network namespaces (internal/netns) with a veth pair
// as the wire, each with an ipsecd that reads a setkey file made for the
// occasion. The demo pings, moves data, watches the wire for anything that is
// not ESP, and takes everything down again, whatever happened. It owns its
// namespaces, a temporary directory and the processes that it started; outside
// of these nothing changes.
//
// RFC 4303 ESP, RFC 3948 UDP encapsulation.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"ipsecd/internal/netns"
)

// Options change what Run does; the zero value is the demo as documented.
type Options struct {
	Exe   string // the ipsecd to start; this program if empty
	Bytes int64  // octets of each transfer; 1 GiB if 0
}

const (
	gib       = 1 << 30
	width     = 100             // columns of the output
	timeLimit = 5 * time.Minute // a demo that takes longer is stuck
)

// demo is one run.
type demo struct {
	out     io.Writer
	exe     string
	bytes   int64
	tunnels []tunnel
	dir     string
	hosts   [2]*host // A, B; nil until built
	watch   *watch   // nil until opened
}

// tunnels are what the demo sets up between its hosts: each shows another form
// of packet on the wire.
func tunnels() []tunnel {
	wire4 := [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	wire6 := [2]netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")}
	return []tunnel{
		{
			title: "IPv4 in ESP", reqid: 1, spi: [2]uint32{0x1001, 0x1002}, outer: wire4, suite: gcm,
			inner: [2]netip.Addr{netip.MustParseAddr("10.91.1.1"), netip.MustParseAddr("10.91.1.2")},
		},
		{
			title: "IPv6 in ESP", reqid: 2, spi: [2]uint32{0x2001, 0x2002}, outer: wire6, suite: cbcHMAC,
			inner: [2]netip.Addr{netip.MustParseAddr("fd91::1"), netip.MustParseAddr("fd91::2")},
		},
		{
			title: "IPv4 in ESP in UDP", reqid: 3, spi: [2]uint32{0x3001, 0x3002}, outer: wire4, suite: gcm, natt: true,
			inner: [2]netip.Addr{netip.MustParseAddr("10.91.2.1"), netip.MustParseAddr("10.91.2.2")},
		},
	}
}

// Run runs the demo and prints what happens to out. It returns nil when every
// packet came through, both transfers arrived as sent and nothing but ESP was on
// the wire; an error that names what failed or is missing otherwise, or what
// interrupted it: the end of ctx, SIGINT, SIGTERM, SIGHUP or SIGPIPE. In each case
// everything it made is gone by then. An ordinary user's process runs again in a
// user namespace and does not return.
func Run(ctx context.Context, out io.Writer, opts Options) error {
	if err := admit(); err != nil {
		return fmt.Errorf("the demo cannot run here: %w", err)
	}
	// SIGPIPE too: a reader of our output that went away must not leave the rest.
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, timeLimit, fmt.Errorf("not done after %v", timeLimit))
	defer cancel()

	d, err := newDemo(out, opts)
	if err != nil {
		return err
	}
	err = d.steps(ctx)
	if ctx.Err() != nil {
		err = fmt.Errorf("demo stopped: %w", context.Cause(ctx))
	} else if err != nil {
		d.printLogs()
	}
	return errors.Join(err, d.takeDown())
}

// admit makes sure that the process may do what the demo needs, in a user
// namespace if need be.
func admit() error {
	if err := netns.TUNAvailable(); err != nil {
		return err
	}
	if _, err := netns.ReexecInUserNS(); err != nil {
		return fmt.Errorf("this takes root or a user namespace: %w", err)
	}
	return netns.Available()
}

func newDemo(out io.Writer, opts Options) (d *demo, err error) {
	d = &demo{out: out, exe: opts.Exe, bytes: opts.Bytes, tunnels: tunnels()}
	if d.bytes == 0 {
		d.bytes = gib
	}
	if d.exe == "" {
		if d.exe, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	d.dir, err = os.MkdirTemp("", "ipsecd-demo-")
	return d, err
}

// steps is the demo: each step has a heading and ends it when it fails.
func (d *demo) steps(ctx context.Context) error {
	raw4, raw6, udp4 := d.tunnels[0], d.tunnels[1], d.tunnels[2]
	for i, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"Two hosts and a wire between them", d.build},
		{"Their setkey files; the keys are random, made for this run and of no use after it", d.configure},
		{"An ipsecd on each host", d.start},
		{"Ping, " + raw4.title, func(ctx context.Context) error { return d.ping(ctx, raw4) }},
		{"Ping, " + raw6.title, func(ctx context.Context) error { return d.ping(ctx, raw6) }},
		{d.amount() + " over TCP, " + raw4.title, func(ctx context.Context) error { return d.transfer(ctx, raw4) }},
		{d.amount() + " over TCP, " + udp4.title, func(ctx context.Context) error { return d.transfer(ctx, udp4) }},
	} {
		d.printf("\n%d. %s\n", i+1, step.title)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.title, err)
		}
	}
	return nil
}

// takeDown stops the daemons, says what was seen on the wire while anything ran,
// and removes what the demo made. It does all of it whatever fails.
func (d *demo) takeDown() error {
	d.printf("\nTaking everything down\n")
	errs := []error{d.stop()}
	if d.watch != nil {
		errs = append(errs, d.verdict())
	}
	for _, h := range d.hosts {
		if h != nil {
			errs = append(errs, h.ns.Close())
		}
	}
	errs = append(errs, os.RemoveAll(d.dir))
	return errors.Join(errs...)
}

// verdict prints and judges what the watch saw.
func (d *demo) verdict() error {
	seen, err := d.watch.close()
	if err != nil {
		return err
	}
	frames, err := d.hosts[0].framesOnWire()
	if err != nil {
		return err
	}
	for _, line := range seen.lines {
		d.printf("  in the clear: %s\n", line)
	}
	d.printf("  %d frames on the wire, %d frames in the clear\n", frames, seen.frames)
	return seen.judge()
}

func (d *demo) printf(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

// amount names the size of a transfer.
func (d *demo) amount() string {
	if d.bytes%gib == 0 {
		return fmt.Sprintf("%d GiB", d.bytes/gib)
	}
	return fmt.Sprintf("%d octets", d.bytes)
}

// wrap breaks text at blanks into lines that fit, each with the indent.
func wrap(text, indent string) string {
	var b strings.Builder
	column := width
	for _, word := range strings.Fields(text) {
		if column+1+len(word) > width {
			if b.Len() > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(indent)
			column = len(indent)
		} else {
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String() + "\n"
}
