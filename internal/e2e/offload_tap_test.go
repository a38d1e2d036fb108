package e2e

import (
	"encoding/binary"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tunName is the TUN of every host.
const tunName = "tun0"

// tap keeps the packets that pass a host's TUN.
type tap struct {
	fd   int
	end  chan struct{}
	done chan struct{}

	mu   sync.Mutex
	pkts []tapped
}

// tapped is one packet, with what the kernel has not taken apart yet.
type tapped struct {
	fromHost bool // the host sends it
	octets   []byte
}

// tapTUN taps a host's TUN until the test ends.
func tapTUN(t *testing.T, h *host) *tap {
	t.Helper()
	p := &tap{end: make(chan struct{}), done: make(chan struct{})}
	err := h.ns.Do(func() (err error) {
		p.fd, err = openTap(tunName)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	go p.collect()
	t.Cleanup(func() {
		close(p.end)
		<-p.done
		unix.Close(p.fd)
	})
	return p
}

func openTap(name string) (int, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<20)
	}
	tv := unix.NsecToTimeval(int64(20 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("setsockopt", err)
	}
	all := uint16(unix.ETH_P_ALL)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: link.Attrs().Index}); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("bind", err)
	}
	return fd, nil
}

func (p *tap) collect() {
	defer close(p.done)
	buf := make([]byte, 1<<17)
	for {
		n, from, err := unix.Recvfrom(p.fd, buf, 0)
		if err == nil {
			sa, ok := from.(*unix.SockaddrLinklayer)
			p.mu.Lock()
			p.pkts = append(p.pkts, tapped{ok && sa.Pkttype == unix.PACKET_OUTGOING, append([]byte(nil), buf[:n]...)})
			p.mu.Unlock()
			continue
		}
		if err != unix.EAGAIN && err != unix.EINTR {
			return
		}
		select {
		case <-p.end:
			return
		default:
		}
	}
}

// saw reports whether a packet of exactly these octets has passed, and how many.
func (p *tap) saw(octets []byte) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, q := range p.pkts {
		if string(q.octets) == string(octets) {
			n++
		}
	}
	return n
}

// longest returns the length of the longest packet that the host sent, and of
// the longest that it got, since the last call.
func (p *tap) longest() (sent, got int) {
	time.Sleep(50 * time.Millisecond) // for what waits in the socket
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, q := range p.pkts {
		if q.fromHost {
			sent = max(sent, len(q.octets))
		} else {
			got = max(got, len(q.octets))
		}
	}
	p.pkts = nil
	return sent, got
}

// Switches of a device that ETHTOOL ioctls set (linux/ethtool.h).
const (
	txChecksum = 0x17
	scatter    = 0x19
	tso        = 0x1f
	gso        = 0x24
	gro        = 0x2c
)

// ethtool turns switches of a host's device on or off.
func ethtool(h *host, device string, on bool, switches ...uint32) {
	h.Helper()
	err := h.ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(fd)
		for _, s := range switches {
			if err := ethtoolSet(fd, device, s, on); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		h.Fatalf("host %s: ethtool %s: %v", h.name, device, err)
	}
}

func ethtoolSet(fd int, device string, command uint32, on bool) error {
	value := struct{ command, data uint32 }{command: command} // struct ethtool_value
	if on {
		value.data = 1
	}
	var ifr struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(ifr.name[:unix.IFNAMSIZ-1], device)
	ifr.data = unsafe.Pointer(&value)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr)))
	if errno != 0 {
		return os.NewSyscallError("SIOCETHTOOL", errno)
	}
	return nil
}

// counter is one number of /proc/net/snmp, as "Udp InCsumErrors".
func (h *host) counter(group, name string) (value string) {
	h.Helper()
	text, _ := h.run("cat", "/proc/net/snmp")
	var names []string
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if f[0] != group+":" {
			continue
		}
		if names == nil {
			names = f
			continue
		}
		for i := range names {
			if names[i] == name {
				return f[i]
			}
		}
	}
	h.Fatalf("no %s %s in\n%s", group, name, text)
	return ""
}

// onesSum is the Internet checksum before its complement (RFC 1071).
func onesSum(parts ...[]byte) uint16 {
	sum := uint32(0)
	for _, p := range parts { // all but the last even
		for i := 0; i+1 < len(p); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(p[i:]))
		}
		if len(p)%2 == 1 {
			sum += uint32(p[len(p)-1]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
