package e2e

import (
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// capture collects the start of every frame on a host's wire.
type capture struct {
	t    *testing.T
	fd   int
	end  chan struct{}
	done chan struct{}
	once sync.Once

	frames [][]byte // readable after done
}

// snap is enough for Ethernet, IPv6, UDP and an ESP header with its IV.
const snap = 128

// listen captures on the host's wire until stop, both directions.
func listen(t *testing.T, h *host) *capture {
	t.Helper()
	c := &capture{t: t, end: make(chan struct{}), done: make(chan struct{})}
	err := h.ns.Do(func() (err error) {
		c.fd, err = openPacket()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	go c.collect()
	t.Cleanup(func() { c.stop() })
	return c
}

// openPacket opens a packet socket on the wire of the namespace it is called in.
func openPacket() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 512<<20) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 512<<20)
	}
	code, err := bpf.Assemble([]bpf.Instruction{bpf.RetConstant{Val: snap}})
	if err != nil {
		return -1, err
	}
	filter := []unix.SockFilter{{Code: code[0].Op, Jt: code[0].Jt, Jf: code[0].Jf, K: code[0].K}}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: 1, Filter: &filter[0]}); err != nil {
		return -1, err
	}
	link, err := netlink.LinkByName(wireName)
	if err != nil {
		return -1, err
	}
	tv := unix.NsecToTimeval(int64(50 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		return -1, err
	}
	all := uint16(unix.ETH_P_ALL)
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: link.Attrs().Index})
}

func (c *capture) collect() {
	defer close(c.done)
	buf := make([]byte, snap)
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		switch {
		case err == nil:
			c.frames = append(c.frames, append([]byte(nil), buf[:n]...))
			continue
		case err != unix.EAGAIN && err != unix.EINTR:
			return
		}
		select {
		case <-c.end:
			return
		default:
		}
	}
}

// stop ends the capture, checks that it missed nothing, and returns the frames.
func (c *capture) stop() [][]byte {
	c.once.Do(func() {
		close(c.end)
		<-c.done
		stats, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil || stats.Drops > 0 {
			c.t.Errorf("the capture missed frames: %+v, %v", stats, err)
		}
		unix.Close(c.fd)
	})
	return c.frames
}

// esp is what a frame shows of an ESP packet.
type esp struct {
	spi, seq uint32
	iv       uint64 // of AES-GCM
	udp      bool
}

// dissect tells ESP from what is allowed besides, ARP and neighbour discovery,
// and says what else a frame is.
func dissect(frame []byte) (e *esp, other string) {
	const eth = 14
	if len(frame) < eth+20 {
		return nil, "a runt"
	}
	var proto byte
	var payload []byte
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_ARP:
		return nil, ""
	case unix.ETH_P_IP:
		proto, payload = frame[eth+9], frame[eth+int(frame[eth]&15)*4:]
	case unix.ETH_P_IPV6:
		proto, payload = frame[eth+6], frame[eth+40:]
		if proto == unix.IPPROTO_HOPOPTS {
			proto, payload = payload[0], payload[8+int(payload[1])*8:]
		}
	}
	switch {
	case proto == unix.IPPROTO_ICMPV6 && (payload[0] >= 130 && payload[0] <= 136 || payload[0] == 143):
		return nil, ""
	case proto == unix.IPPROTO_ESP && len(payload) >= 16:
		return dissectESP(payload, false), ""
	case proto == unix.IPPROTO_UDP && len(payload) >= 24 && binary.BigEndian.Uint16(payload) == 4500:
		return dissectESP(payload[8:], true), ""
	}
	return nil, fmt.Sprintf("protocol %d: %x", proto, frame)
}

func dissectESP(p []byte, udp bool) *esp {
	return &esp{binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:]), binary.BigEndian.Uint64(p[8:]), udp}
}

// onlyESP stops the capture, wants nothing in clear in it, and returns the ESP
// packets.
func (c *capture) onlyESP() (all []*esp) {
	c.t.Helper()
	bad := 0
	for _, f := range c.stop() {
		e, other := dissect(f)
		if other != "" {
			if bad++; bad <= 5 {
				c.t.Errorf("in clear on the wire: %s", other)
			}
		}
		if e != nil {
			all = append(all, e)
		}
	}
	if len(all) == 0 {
		c.t.Error("no ESP on the wire")
	}
	return all
}
