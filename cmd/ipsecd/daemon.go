package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"ipsecd/control"
	"ipsecd/dataplane"
	"ipsecd/dataplane/link"
	"ipsecd/sad"
	"ipsecd/spd"
)

const socketName = "control.sock"

// daemon is all that ipsecd run holds, in the order it is made; close takes it
// back in the reverse.
type daemon struct {
	options
	log     *slog.Logger
	sad     *sad.DB
	spd     *spd.DB
	engine  *dataplane.Engine
	control *control.Engine
	clock   atomic.Int64 // Unix seconds

	listener net.Listener
	tun      link.TUN
	wires    dataplane.Wires
	links    []interface{ Close() error }
	host     *hostNetwork
	workers  sync.WaitGroup
	failed   chan error // a worker's trouble
	broken   bool       // it ended by that
	ready    bool       // it served
	dropped  dropReport
}

// newDaemon makes the databases and loads the files; nothing of the host is
// touched yet.
func newDaemon(o options) (*daemon, error) {
	d := &daemon{
		options: o,
		log:     slog.New(slog.NewTextHandler(os.Stderr, nil)),
		sad:     sad.New(),
		spd:     spd.New(),
		failed:  make(chan error, 1),
	}
	d.clock.Store(time.Now().Unix())
	d.engine = dataplane.New(dataplane.Config{SAD: d.sad, SPD: d.spd, Now: d.clock.Load, Hop: o.routes == "off"})
	d.control = control.New(control.Config{
		SAD: d.sad, SPD: d.spd, Log: d.log, NATTPort: o.natt, OnChange: d.changed,
	})
	for _, f := range o.files {
		if err := d.control.LoadFile(f); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// changed follows the databases with routes and MTU. It runs before the change
// is answered, so that who asked finds both in place.
func (d *daemon) changed() error {
	if d.host == nil {
		return nil
	}
	return d.host.followChange(d.spd, d.sad)
}

// open makes socket, device and links. Sockets for ESP are open before the
// first route: the kernel would answer "protocol unreachable".
func (d *daemon) open() error {
	err := makeRunDir(d.runDir)
	if err != nil {
		return err
	}
	if d.listener, err = control.Listen(filepath.Join(d.runDir, socketName)); err != nil {
		return err
	}
	if d.tun, err = link.OpenTUN(d.options.tun); err != nil {
		return err
	}
	d.links = append(d.links, d.tun)
	if err := d.openWires(); err != nil {
		return err
	}
	host, err := openHost(d.options, d.tun.Name(), d.log)
	if err != nil {
		return err
	}
	d.host = host
	return d.host.follow(d.spd, d.sad)
}

// openWires opens the sockets of both families. A host without IPv6 does
// without those.
func (d *daemon) openWires() error {
	open := func(to *link.Outside, l link.Outside, err error) error {
		if errors.Is(err, errNoFamily) {
			return nil
		}
		if err != nil {
			return explainSocket(err)
		}
		*to = l
		d.links = append(d.links, l)
		return nil
	}
	w := &d.wires
	w.UDPPort = d.natt
	for _, v6 := range []bool{false, true} {
		raw, udp, bypass := &w.Raw4, &w.UDP4, &w.Bypass4
		if v6 {
			raw, udp, bypass = &w.Raw6, &w.UDP6, &w.Bypass6
		}
		l, err := link.OpenRaw(v6, protoESP, d.mark)
		if err := open(raw, l, err); err != nil {
			return err
		}
		l, err = link.OpenBypass(v6, d.mark)
		if err := open(bypass, l, err); err != nil {
			return err
		}
		if d.natt == 0 {
			continue
		}
		l, err = link.OpenUDP(v6, d.natt, d.mark)
		if err := open(udp, l, err); err != nil {
			return err
		}
	}
	return nil
}

// serve starts the workers and the control server and waits for the end.
func (d *daemon) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.ready = true
	d.start(d.engine.NewInside(d.tun, d.wires).Run)
	for _, l := range []link.Outside{d.wires.Raw4, d.wires.Raw6, d.wires.UDP4, d.wires.UDP6} {
		if l != nil {
			d.start(d.engine.NewOutside(l, d.tun).Run)
		}
	}
	var side sync.WaitGroup
	side.Go(func() { d.tick(ctx) })
	side.Go(func() { d.host.keepUp(ctx, d.spd, d.sad) })
	side.Go(func() {
		if err := d.control.Serve(ctx, d.listener); err != nil {
			d.fail(fmt.Errorf("control socket: %w", err))
		}
	})
	d.log.Info("ready", "tun", d.tun.Name(), "socket", filepath.Join(d.runDir, socketName),
		"sas", d.sad.Len(), "policies", d.spd.Len())
	var err error
	select {
	case <-ctx.Done():
	case err = <-d.failed:
		d.broken = true
	}
	cancel()
	side.Wait()
	return err
}

// start runs a worker.
func (d *daemon) start(run func() error) {
	d.workers.Go(func() {
		if err := run(); err != nil {
			d.fail(err)
		}
	})
}

func (d *daemon) fail(err error) {
	select {
	case d.failed <- err:
	default:
	}
}

// reportEvery is how often what was dropped is logged, if anything was.
const reportEvery = time.Minute

// tick keeps the engine's clock, so that no packet asks the kernel for the time,
// wipes the keys of SAs that nobody uses any more, and logs what was dropped
// meanwhile.
func (d *daemon) tick(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	reported := time.Now()
	for {
		select {
		case now := <-t.C:
			d.clock.Store(now.Unix())
			d.sad.Reap()
			if now.Sub(reported) >= reportEvery {
				d.reportDrops()
				reported = now
			}
		case <-ctx.Done():
			return
		}
	}
}

func (d *daemon) reportDrops() { d.dropped.log(d.log, &d.engine.Drops, d.sad) }

// close takes back what open made and returns err, or else what went wrong. A
// daemon that broke leaves its rules and unreachable routes, as a killed one
// does: nothing that was protected leaves in clear for it.
func (d *daemon) close(err error) error {
	errs := []error{err}
	switch {
	case d.host == nil:
	case d.broken:
		d.log.Error("left the rules, which keep what was protected from leaving in clear; the next start and stop takes them back")
	default:
		errs = append(errs, d.host.close(d.ready))
	}
	d.reportDrops() // before it drops what is on its way through links that close
	for _, l := range d.links {
		errs = append(errs, l.Close())
	}
	d.workers.Wait()
	if d.listener != nil {
		if e := d.listener.Close(); !errors.Is(e, net.ErrClosed) {
			errs = append(errs, e)
		}
	}
	if n := d.engine.Bypassed.Load(); n > 0 {
		d.log.Info("passed as they were, by a policy none or for lack of one", "packets", n)
	}
	return errors.Join(errs...)
}
