package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const defaultRunDir = "/run/ipsecd"

// options are the flags of ipsecd run.
type options struct {
	files  []string
	tun    string
	mtu    int
	addrs  []netip.Prefix
	runDir string
	natt   uint16
	routes string
	mark   uint32
}

func runCommand() *cobra.Command {
	var o options
	var addrs []string
	cmd := &cobra.Command{
		Use:   "run [-f FILE]...",
		Short: "Run the daemon in the foreground until SIGTERM, SIGINT or SIGHUP",
		Long: `Makes a TUN device, loads setkey files, sends what their outbound policies
protect through it, and listens for setkey on control.sock in the run directory.
At the end it takes back every device, route and rule that it made.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(addrs); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), endSignals()...)
			defer stop()
			return run(ctx, o)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return explainFlag(err) })
	f := cmd.Flags()
	f.StringArrayVarP(&o.files, "file", "f", nil, "setkey `FILE` to load before the first packet; may be given again")
	f.StringVar(&o.tun, "tun", "ipsec%d", "`NAME` of the TUN device to make; %d stands for the first free number")
	f.IntVar(&o.mtu, "mtu", 0, "MTU `N` of the TUN (default: path MTU less the largest overhead of the loaded SAs)")
	f.StringArrayVar(&addrs, "addr", nil, "address `PREFIX` to give the TUN, as 10.0.0.1/24; may be given again")
	f.StringVar(&o.runDir, "run-dir", defaultRunDir, "`DIR` of control.sock")
	f.Uint16Var(&o.natt, "natt", 4500, "local UDP `PORT` of encapsulated ESP; 0 for none")
	f.StringVar(&o.routes, "routes", "auto", "`WHICH`: auto sends what outbound policies protect into the TUN, off leaves routing alone")
	f.Uint32Var(&o.mark, "mark", 0x6970, "fwmark `N` of the packets that ipsecd itself sends")
	return cmd
}

// numbers are the flags that are one, and what it may be.
var numbers = map[string]string{
	"mark": "it is a number from 1 to 4294967295, as 0x6970",
	"mtu":  fmt.Sprintf("it is from %d to %d", minMTU, maxMTU),
	"natt": "it is a port from 0 to 65535",
}

// explainFlag says of a number that cannot be read what it may be.
func explainFlag(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) || numbers[invalid.GetFlag().Name] == "" {
		return err
	}
	name := invalid.GetFlag().Name
	return fmt.Errorf("--%s %s: %s", name, invalid.GetValue(), numbers[name])
}

// endSignals are those that end the daemon; SIGHUP not under nohup(1).
func endSignals() []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// complete checks the flags and fills what they leave open.
func (o *options) complete(addrs []string) error {
	for _, a := range addrs {
		p, err := parseAddr(a)
		if err != nil {
			return err
		}
		o.addrs = append(o.addrs, p)
	}
	switch {
	case o.routes != "auto" && o.routes != "off":
		return fmt.Errorf("--routes %s: it is auto or off", o.routes)
	case o.mtu != 0 && (o.mtu < minMTU || o.mtu > maxMTU):
		return fmt.Errorf("--mtu %d: %s", o.mtu, numbers["mtu"])
	case o.mtu != 0 && o.mtu < minMTUIPv6 && slices.ContainsFunc(o.addrs, isIPv6):
		return fmt.Errorf("--mtu %d: with an IPv6 address it is at least %d", o.mtu, minMTUIPv6)
	case o.mark == 0:
		return fmt.Errorf("--mark 0: the mark tells our own packets from others and cannot be 0")
	case o.tun == "":
		return fmt.Errorf("--tun: the name is empty")
	}
	return nil
}

func isIPv6(p netip.Prefix) bool { return p.Addr().Is6() }

// parseAddr reads an address with or without a prefix length.
func parseAddr(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("--addr %s: it is an address with a prefix length, as 10.0.0.1/24 or fd00::1/64", s)
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if a := p.Addr(); a.IsMulticast() || a.IsLoopback() || a.IsUnspecified() || a.Is4In6() {
		return netip.Prefix{}, fmt.Errorf("--addr %s: no host has that address; give a unicast one, as 10.0.0.1/24 or fd00::1/64", s)
	}
	return p, nil
}

// run is the life of the daemon.
func run(ctx context.Context, o options) (err error) {
	d, err := newDaemon(o)
	if err != nil {
		return err
	}
	defer func() { err = d.close(err) }()
	if err := d.open(); err != nil {
		return err
	}
	switch err := dropPrivileges(); {
	case errors.Is(err, errPrivileges):
		d.log.Warn(err.Error())
	case err != nil:
		return err
	}
	return d.serve(ctx)
}
