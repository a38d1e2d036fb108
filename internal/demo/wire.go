package demo

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"ipsecd/internal/netns"
)

const (
	watchBuffer  = 8 << 20 // octets of frames that may wait for us
	watchLines   = 10      // frames in the clear that are described
	sampleFrames = 4       // frames that a sample describes
	maxFrame     = 1 << 17 // octets: a frame of segmentation offload is up to 64 KiB and headers
	lastReads    = 100 * time.Millisecond
)

// capture is an AF_PACKET socket on one link that receives the frames, sent and
// received, that its filter passes.
type capture struct {
	*os.File
}

// openCapture opens a capture on the link inside the namespace. No frame that
// the filter keeps back is ever queued.
func openCapture(ns *netns.NS, link string, v verdicts) (c capture, err error) {
	program, err := filter(v)
	if err != nil {
		return c, err
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return c, err
	}
	err = ns.Do(func() error {
		// Protocol 0: nothing is received before bind, thus nothing unfiltered.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		if err := attach(fd, link, raw); err != nil {
			unix.Close(fd)
			return err
		}
		c.File = os.NewFile(uintptr(fd), "capture on "+link)
		return nil
	})
	return c, err
}

func attach(fd int, link string, program []bpf.RawInstruction) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return fmt.Errorf("link %s: %w", link, err)
	}
	code := make([]unix.SockFilter, len(program))
	for i, ins := range program {
		code[i] = unix.SockFilter{Code: ins.Op, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	prog := &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog); err != nil {
		return fmt.Errorf("filter: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, watchBuffer)
	if errors.Is(err, unix.EPERM) { // in a user namespace: up to the system's limit
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, watchBuffer)
	}
	if err != nil {
		return fmt.Errorf("receive buffer: %w", err)
	}
	all := uint16(unix.ETH_P_ALL)
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: l.Attrs().Index})
}

// counts returns how many frames passed the filter and how many of these were
// lost for want of buffer. The kernel starts again from 0.
func (c capture) counts() (frames, lost uint32, err error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var stats *unix.TpacketStats
	var optErr error
	if err := rc.Control(func(fd uintptr) {
		stats, optErr = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	}); err != nil {
		return 0, 0, err
	}
	if optErr != nil {
		return 0, 0, fmt.Errorf("packet statistics: %w", optErr)
	}
	return stats.Packets, stats.Drops, nil // Packets includes the dropped
}

// describe reads frames until the capture closes or its deadline passes, hands
// each to line, and returns up to limit lines. Having these it reads on only if
// drain is set.
func (c capture) describe(limit int, drain bool) (lines []string, err error) {
	buf := make([]byte, maxFrame)
	for {
		n, err := c.Read(buf)
		if errors.Is(err, os.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		if len(lines) < limit {
			lines = append(lines, frameLine(time.Now(), buf[:n]))
		}
		if len(lines) == limit && !drain {
			return lines, nil
		}
	}
}

// watch looks out for frames in the clear.
type watch struct {
	capture capture
	done    chan struct{} // closed when the reader ended
	lines   []string      // readable after done
	err     error         // readable after done
}

func startWatch(ns *netns.NS, link string) (*watch, error) {
	c, err := openCapture(ns, link, verdicts{inClear: wholeFrame})
	if err != nil {
		return nil, err
	}
	w := &watch{capture: c, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		w.lines, w.err = c.describe(watchLines, true)
	}()
	return w, nil
}

// sighting is what a watch saw.
type sighting struct {
	frames, lost uint32
	lines        []string // of the first frames
}

// close ends the watch, after the frames that are still queued.
func (w *watch) close() (s sighting, err error) {
	defer w.capture.Close()
	if err := w.capture.SetReadDeadline(time.Now().Add(lastReads)); err != nil {
		return s, err
	}
	<-w.done
	s.lines = w.lines
	s.frames, s.lost, err = w.capture.counts()
	return s, errors.Join(w.err, err)
}

// judge returns an error if anything was in the clear.
func (s sighting) judge() error {
	if s.frames > 0 {
		return fmt.Errorf("%d frames in the clear on the wire (%d of them lost before we could look)", s.frames, s.lost)
	}
	return nil
}

// sample describes the next few protected frames.
type sample struct {
	capture capture
	close   func()        // ends it early; again: nothing
	done    chan struct{} // closed when the reader ended
	lines   []string      // readable after done
	err     error         // readable after done
}

func startSample(ns *netns.NS, link string) (*sample, error) {
	c, err := openCapture(ns, link, verdicts{protected: wholeFrame})
	if err != nil {
		return nil, err
	}
	s := &sample{capture: c, done: make(chan struct{})}
	s.close = sync.OnceFunc(func() {
		c.Close()
		<-s.done
	})
	go func() {
		defer close(s.done)
		defer c.Close()
		s.lines, s.err = c.describe(sampleFrames, false)
	}()
	return s, nil
}

// printSample ends the sample and prints it.
func (d *demo) printSample(s *sample) error {
	s.close()
	if s.err != nil {
		return s.err
	}
	d.printf("  on the wire, the first octets of ciphertext at the end of each line:\n")
	trains := false
	for _, line := range s.lines {
		d.printf("  %s\n", line)
		trains = trains || strings.Contains(line, trainMark(wireMTU+1))
	}
	if trains {
		d.printf("  (* datagrams that leave in one piece and are cut apart by the link's offload)\n")
	}
	return nil
}
