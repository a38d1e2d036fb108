package netns

import (
	"context"
	"net"
	"os/exec"
	"syscall"
	"time"
)

// stopDelay is how long a Command's process may take to end after SIGTERM.
const stopDelay = 5 * time.Second

// Command returns a command to be given to Start or Run. When ctx ends, its
// process gets SIGTERM and, five seconds later, SIGKILL; it gets SIGTERM as well
// when this process dies or the NS is closed. It has a process group of its own,
// so that a terminal's Ctrl-C reaches it only in this orderly way.
func (ns *NS) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopDelay
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	return cmd
}

// Start starts cmd, of Command or any other, inside the namespace. Its Wait and
// Process may be used as ever.
func (ns *NS) Start(cmd *exec.Cmd) error { return ns.Do(cmd.Start) }

// Run starts cmd inside the namespace and waits for its end.
func (ns *NS) Run(cmd *exec.Cmd) error {
	if err := ns.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// Listen opens a listener inside the namespace, as net.Listen does.
func (ns *NS) Listen(network, address string) (l net.Listener, err error) {
	err = ns.Do(func() error {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// Dial connects from inside the namespace, as net.Dialer does; the address is
// numeric. Other calls on the NS wait meanwhile, so ctx should have a deadline.
func (ns *NS) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = ns.Do(func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}
