package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ipsecd/dataplane/link"
	"ipsecd/internal/routes"
	"ipsecd/sad"
	"ipsecd/spd"
)

const protoESP = unix.IPPROTO_ESP

// stateName is the file of the run directory that says how links were filtered
// before.
const stateName = "rp_filter"

var errNoFamily = error(syscall.EAFNOSUPPORT)

// explainSocket says what to do about a socket that cannot be opened.
func explainSocket(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: CAP_NET_RAW and CAP_NET_ADMIN are needed; run as root or grant them", err)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("%w: choose another by --natt, or 0 for none", err)
	}
	return err
}

// hostNetwork is what the daemon does to the host's network: the TUN's MTU and
// the routes that lead into it.
type hostNetwork struct {
	o      options
	tun    string
	log    *slog.Logger
	routes router // nil with --routes off

	// askMTU asks the kernel for the MTU of the path to a destination, in octets.
	askMTU func(netip.Addr) (int, error)

	mu       sync.Mutex
	mtu      int                // [m] of the TUN
	leastMTU int                // [m] that it does not go below, by addresses and policies
	fits     int                // [m] what it would be otherwise, the last time that there were SAs
	mtu4     int                // [m] of IPv4 where that is less than the TUN's, else 0
	ipv6     ipv6Policies       // [m] as followed
	paths    map[netip.Addr]int // [m] MTU to the destination of each SA
	followed uint64             // [m] generation of the outbound policies
	behind   error              // [m] what following these came to, the last time
	trouble  string             // [m] with all of it, the last time

	saidStrict bool       // [m] that the TUN filters strictly
	saidLoop   [2]bool    // [m] that the way to a peer is the TUN, of IPv4 and of IPv6
	narrowTo   netip.Addr // [m] peer that was said to have a path too small for IPv6
}

// router is what a hostNetwork needs of a routes.Manager.
type router interface {
	Apply(protect []routes.Route, exempt []netip.Prefix, mtu4 int) error
	Repair() error
	Close() error
	Abort() error
}

// openHost sets the TUN up and installs the rules.
func openHost(o options, tun string, log *slog.Logger) (*hostNetwork, error) {
	h := &hostNetwork{o: o, tun: tun, log: log, mtu: o.mtu}
	h.askMTU = func(dst netip.Addr) (int, error) { return routes.PathMTU(dst, o.mark, tun) }
	if h.mtu == 0 {
		h.mtu = defaultMTU
	}
	h.fits = h.mtu
	if err := h.setupLink(h.mtu); err != nil {
		return nil, err
	}
	if o.routes == "off" {
		h.warnRPFilter()
		return h, nil
	}
	m, err := routes.New(routes.Config{
		Link: tun, Mark: o.mark, NATTPort: o.natt, Log: log, Guard: true, State: filepath.Join(o.runDir, stateName),
	})
	if err != nil {
		return nil, err
	}
	h.routes = m
	return h, nil
}

// setupLink sets the TUN up. What comes of strict filtering is for unfilter to say.
func (h *hostNetwork) setupLink(mtu int) error {
	err := routes.SetupLink(h.tun, mtu, h.o.addrs, link.GSOSize, link.GSOSegs)
	if errors.Is(err, routes.ErrStrict) {
		return nil
	}
	return err
}

// unfilter keeps the TUN from dropping what comes out of SAs for its source. That
// it cannot is said once.
func (h *hostNetwork) unfilter() error {
	err := routes.Unfilter(h.tun)
	if !errors.Is(err, routes.ErrStrict) {
		return err
	}
	if !h.saidStrict {
		h.saidStrict = true
		h.log.Warn(err.Error())
	}
	return nil
}

// warnRPFilter names what would swallow inbound ESP when routes that others
// made lead a peer's address into the TUN.
func (h *hostNetwork) warnRPFilter() {
	strict, err := routes.CheckRPFilter()
	if err != nil || len(strict) == 0 {
		return
	}
	h.log.Warn("strict reverse-path filtering drops ESP from a peer whose address is routed into the TUN; "+
		"if there is one: sysctl -w net.ipv4.conf.LINK.rp_filter=2 (and .all)", "links", strict)
}

// follow makes routes, addresses and MTU what the databases, and the host's own
// addresses and paths, want. One does not wait for the other to succeed.
func (h *hostNetwork) follow(policies *spd.DB, sas *sad.DB) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.paths = nil
	return h.followLocked(policies, sas, true)
}

// followChange is follow for somebody who changed the databases, and looks at no
// more than that: routes and addresses where outbound policies changed, the paths
// to destinations that had no SA yet. Trouble that was there before is not his.
func (h *hostNetwork) followChange(policies *spd.DB, sas *sad.DB) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.trouble
	err := h.followLocked(policies, sas, h.followed != policies.Generation(spd.Out))
	if err != nil && h.trouble == before {
		return nil
	}
	return err
}

// followLocked follows the SAs and, where reroute says so or their routes want
// another MTU, the outbound policies.
// The MTU comes first: the kernel keeps no IPv6 on a link with too small a one.
func (h *hostNetwork) followLocked(policies *spd.DB, sas *sad.DB, reroute bool) error {
	if reroute {
		h.followed = policies.Generation(spd.Out) // first: a commit meanwhile is seen as a change again
		h.ipv6 = ipv6Out(policies)
		h.leastMTU = leastMTU(h.o.addrs, h.ipv6)
	}
	before := h.mtu4
	err := h.followMTU(sas)
	if reroute || h.mtu4 != before {
		h.behind = h.followPolicies(policies)
	}
	err = errors.Join(err, h.behind)
	h.report(err)
	return err
}

func (h *hostNetwork) followPolicies(policies *spd.DB) error {
	err := h.keepLink()
	if h.routes == nil {
		return err
	}
	protect, exempt := wanted(policies)
	return errors.Join(err, h.routes.Apply(protect, exempt, h.mtu4))
}

// report logs when there is other trouble than before, or none any more.
func (h *hostNetwork) report(err error) {
	before := h.trouble
	h.trouble = ""
	if err != nil {
		h.trouble = err.Error()
	}
	switch {
	case h.trouble == before:
	case err != nil:
		h.log.Error("cannot follow the host's network", "err", err)
	default:
		h.log.Info("following the host's network again")
	}
}

const (
	keepUpEvery = 3 * time.Second        // path MTUs change without a message
	keepUpPause = 200 * time.Millisecond // after a change, for others to follow
	keepUpShare = 50                     // of the time that following takes, in which it is not done again
	keepUpMost  = 5 * time.Second        // that this may be
)

// keepUp follows what changes on the host: path MTUs, addresses, rules and
// routes that somebody else removed, the TUN set down and up again. Rules and the
// TUN itself, which are few, do not wait for their turn in a large table.
func (h *hostNetwork) keepUp(ctx context.Context, policies *spd.DB, sas *sad.DB) {
	changed, err := routes.Watch(ctx)
	if err != nil {
		h.log.Warn("changes of the host's network are seen with delay", "err", err)
	}
	var rest time.Time // until then the table is left alone
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(keepUpEvery):
		}
		if start := time.Now(); start.After(rest) {
			h.follow(policies, sas)
			took := time.Since(start)
			rest = start.Add(took + min(keepUpShare*took, keepUpMost))
		} else {
			h.repair()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(keepUpPause):
		}
	}
}

// keepLink keeps the TUN's addresses and its filter what they should be.
func (h *hostNetwork) keepLink() error {
	return errors.Join(h.unfilter(), routes.KeepAddrs(h.tun, h.o.addrs))
}

// repair is the part of follow that is cheap, whatever is loaded. What goes wrong is
// for follow to say.
func (h *hostNetwork) repair() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keepLink()
	if h.routes != nil {
		h.routes.Repair()
	}
}

// wanted lists what outbound policies send into the TUN: the destinations of
// those that protect and of those that discard. Exempt are destinations that an
// earlier policy lets pass from everywhere: the detour would change nothing.
func wanted(policies *spd.DB) (protect []routes.Route, exempt []netip.Prefix) {
	for p := range policies.All() {
		switch {
		case p.Dir != spd.Out:
		case p.Action != spd.None:
			protect = append(protect, routes.Route{Dst: p.Sel.Dst, Src: p.Sel.Src})
		case passesAll(p) && !covered(p.Sel.Dst, protect):
			exempt = append(exempt, p.Sel.Dst)
		}
	}
	return protect, exempt
}

func passesAll(p *spd.Policy) bool {
	return p.Sel.Src.Bits() == 0 && p.Sel.Proto == spd.ProtoAny && p.Sel.SrcPort == 0 && p.Sel.DstPort == 0
}

func covered(dst netip.Prefix, protect []routes.Route) bool {
	for _, r := range protect {
		if r.Dst.Overlaps(dst) {
			return true
		}
	}
	return false
}

// close takes the rules and routes back; where the daemon never served, not those
// that a killed one left.
func (h *hostNetwork) close(served bool) error {
	switch {
	case h.routes == nil:
		return nil
	case !served:
		return h.routes.Abort()
	}
	return h.routes.Close()
}
