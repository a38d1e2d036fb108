// Package netns makes anonymous network namespaces and runs things inside
// them: the tests' and the demo's hosts and wires.
//
// An NS owns one OS thread, locked for the life of the NS, that entered the
// namespace when New made it. Everything that has to happen inside (opening a
// socket, configuring a link, forking a process) runs on that thread, one call
// after another; what it opened stays inside the namespace and may be used from
// any goroutine afterwards. Nothing appears under /run/netns: the namespace
// ends with its thread, its processes and its sockets.
//
// All functions may be called concurrently. The package links no testing code;
// it allocates freely.
package netns

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrClosed is returned by calls on an NS after its Close.
var ErrClosed = errors.New("network namespace is closed")

// NS is one network namespace.
type NS struct {
	name   string         // [I]
	handle netns.NsHandle // [I] until Close

	mu     sync.Mutex
	closed bool          // [m]
	calls  chan call     // [I] to the thread inside; closed with closed set
	ended  chan struct{} // [I] closed when that thread is about to end
}

type call struct {
	fn   func() error
	done chan<- error
}

// New makes a network namespace with its loopback up. The name serves messages
// only.
func New(name string) (*NS, error) {
	ns := &NS{name: name, calls: make(chan call), ended: make(chan struct{})}
	ready := make(chan error)
	go ns.enter(ready)
	if err := <-ready; err != nil {
		return nil, fmt.Errorf("network namespace %s: %w", name, err)
	}
	if err := ns.Do(func() error { return setUp("lo") }); err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// enter takes a thread into a new namespace and serves calls there. It never
// unlocks the thread, so the runtime ends it instead of reusing it.
func (ns *NS) enter(ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The first thread cannot end and stands for the process in /proc:
		// holding it here, let another one enter.
		passed := make(chan error)
		go ns.enter(passed)
		err := <-passed
		runtime.UnlockOSThread()
		ready <- err
		return
	}
	var err error
	ns.handle, err = netns.New()
	ready <- err
	if err != nil {
		return
	}
	defer close(ns.ended)
	for c := range ns.calls {
		c.done <- c.fn()
	}
}

// Do runs fn on the thread inside the namespace and returns its error with the
// namespace's name. Calls queue up behind one another: fn should open what it
// needs and leave waiting to others. It must not call Do, Start or Veth of the
// same NS, start goroutines that open sockets, or end its goroutine
// (testing.T.Fatal does).
func (ns *NS) Do(fn func() error) error {
	done := make(chan error, 1)
	if err := ns.send(call{fn, done}); err != nil {
		return err
	}
	if err := <-done; err != nil {
		return fmt.Errorf("in namespace %s: %w", ns.name, err)
	}
	return nil
}

func (ns *NS) send(c call) error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.closed {
		return fmt.Errorf("in namespace %s: %w", ns.name, ErrClosed)
	}
	ns.calls <- c
	return nil
}

// Close ends the thread inside the namespace, which takes along whatever was
// started with a parent-death signal, and then, with the last socket and process
// in it, the namespace. A second Close does nothing.
func (ns *NS) Close() error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.closed {
		return nil
	}
	ns.closed = true
	close(ns.calls)
	<-ns.ended
	return ns.handle.Close()
}

func setUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("link %s up: %w", name, err)
	}
	return nil
}
