package link

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"ipsecd/packet"
)

const (
	// maxSegments is UDP_MAX_SEGMENTS of kernels before 6.9.
	maxSegments = 64
	// maxDatagram is the payload of a datagram, and of a train of them.
	maxDatagram = 65535 - packet.IPv4HeaderLen - packet.UDPHeaderLen
	// udpReadBatch is less than ReadBatch: each message may be a train.
	udpReadBatch = 8
)

// udpSocket sends and receives ESP in UDP (RFC 3948) from one local port. It
// takes whole IP packets: of their IP and UDP header it uses addresses, ports,
// TOS and TTL, and the kernel makes the rest. Of what arrives it knows the same,
// and makes headers of them.
type udpSocket struct {
	*socket
	r     *receiver
	v6    bool
	port  uint16
	heads [udpReadBatch][packet.IPv6HeaderLen + packet.UDPHeaderLen]byte

	// Of the message whose control data is being read.
	dst    packet.Addr
	tos    uint8
	ttl    uint8
	size   int // of the datagrams of a train; 0 for one datagram
	onCmsg func(level, kind int32, data []byte)
}

// OpenUDP opens the encapsulation socket of one family on a port of all local
// addresses. What it sends carries mark.
func OpenUDP(v6 bool, port uint16, mark uint32) (Outside, error) {
	family := unix.AF_INET
	opts := []sockopt{
		{unix.IPPROTO_IP, unix.IP_PKTINFO, 1, "IP_PKTINFO"},
		{unix.IPPROTO_IP, unix.IP_RECVTOS, 1, "IP_RECVTOS"},
		{unix.IPPROTO_IP, unix.IP_RECVTTL, 1, "IP_RECVTTL"},
		{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE, "IP_MTU_DISCOVER"},
	}
	if v6 {
		family = unix.AF_INET6
		opts = []sockopt{
			{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1, "IPV6_V6ONLY"},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO"},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1, "IPV6_RECVTCLASS"},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1, "IPV6_RECVHOPLIMIT"},
			{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE, "IPV6_MTU_DISCOVER"},
		}
	}
	fd, err := openSocket(family, unix.SOCK_DGRAM, unix.IPPROTO_UDP, mark, opts)
	if err != nil {
		return nil, fmt.Errorf("UDP socket: %w", err)
	}
	// Trains of datagrams in one read; kernels before 5.0 deliver them singly.
	unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	var addr unix.Sockaddr = &unix.SockaddrInet4{Port: int(port)}
	if v6 {
		addr = &unix.SockaddrInet6{Port: int(port)}
	}
	if err := unix.Bind(fd, addr); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("UDP port %d: %w", port, os.NewSyscallError("bind", err))
	}
	s, err := newSocket(fd, "udp")
	if err != nil {
		return nil, err
	}
	u := &udpSocket{socket: s, v6: v6, port: port, r: newReceiver(s, udpReadBatch, maxIP, 0, 128)}
	u.onCmsg = u.cmsg
	return u, nil
}

func (s *udpSocket) Read(bs []packet.Burst) (int, error) {
	n, err := s.r.receive()
	if err != nil {
		return 0, err
	}
	for i := range n {
		s.fill(&bs[i], i)
	}
	return n, nil
}

// fill makes the burst of message i. A train of more datagrams than a burst
// holds, which the kernel does not make, is taken for one, and fails to open.
func (s *udpSocket) fill(b *packet.Burst, i int) {
	payload := s.r.bufs[i][:s.r.hdrs[i].n]
	s.dst, s.tos, s.ttl, s.size = packet.Addr{}, 0, 0, len(payload)
	s.r.control(i, s.onCmsg)
	b.Seg, b.Partial, b.Head = packet.UDP, false, s.header(i, len(payload))
	if !b.Split(payload, s.size) {
		b.Segs = append(b.Segs[:0], payload)
	}
}

// header makes the IP and UDP header that message i of n octets came with. The
// socket does not tell its ID: with DF it needs none (RFC 6864 4.1), so that what
// is made of the packets of a train can be joined.
func (s *udpSocket) header(i, n int) []byte {
	name := &s.r.names[i]
	hlen := packet.IPv4HeaderLen
	if s.v6 {
		hlen = packet.IPv6HeaderLen
	}
	head := s.heads[i][:hlen+packet.UDPHeaderLen]
	packet.PutUDP(head[hlen:], ntohs(name.Port), s.port, n+packet.UDPHeaderLen)
	if s.v6 {
		h := packet.IPv6{TOS: s.tos, HopLimit: s.ttl, Next: packet.ProtoUDP, Src: name.Addr, Dst: s.dst}
		h.Put(head, n+len(head))
		return head
	}
	from := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
	h := packet.IPv4{TOS: s.tos, TTL: s.ttl, DF: true, Proto: packet.ProtoUDP, Src: packet.AddrFrom4(from.Addr[:]), Dst: s.dst}
	h.Put(head, n+len(head))
	return head
}

// cmsg reads one control message.
func (s *udpSocket) cmsg(level, kind int32, data []byte) {
	switch {
	case level == unix.IPPROTO_UDP && kind == unix.UDP_GRO && len(data) >= 4:
		s.size = int(binary.NativeEndian.Uint32(data))
	case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		s.dst = packet.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Addr[:])
	case level == unix.IPPROTO_IP && kind == unix.IP_TOS && len(data) >= 1:
		s.tos = data[0]
	case level == unix.IPPROTO_IP && kind == unix.IP_TTL && len(data) >= 4:
		s.ttl = byte(binary.NativeEndian.Uint32(data))
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		s.dst = (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0])).Addr
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_TCLASS && len(data) >= 4:
		s.tos = byte(binary.NativeEndian.Uint32(data))
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_HOPLIMIT && len(data) >= 4:
		s.ttl = byte(binary.NativeEndian.Uint32(data))
	}
}

func (s *udpSocket) Writer() PacketWriter {
	w := &udpWriter{sender: newSender(s.socket, 1, maxSegments), v6: s.v6, gso: maxSegments}
	w.ctl = make([]byte, 128)
	return w
}

// udpWriter sends trains of equal datagrams by UDP_SEGMENT.
type udpWriter struct {
	*sender
	v6  bool
	gso int // most datagrams in one call; 1 where the kernel refuses trains
	ctl []byte
}

func (w *udpWriter) Write(pkts [][]byte) (int, error) {
	sent := 0
	for sent < len(pkts) {
		n := w.train(pkts[sent:])
		err := w.sendTrain(pkts[sent : sent+n])
		if err != nil && n > 1 && maybeSegmentation(err) {
			// The train or its datagrams? Its first alone tells.
			n = 1
			if err = w.sendTrain(pkts[sent : sent+1]); err == nil {
				w.gso = 1
			}
		}
		if err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// maybeSegmentation is how the kernel says, among other things, that a device
// cannot do UDP_SEGMENT.
func maybeSegmentation(err error) bool { return err == unix.EIO || err == unix.EINVAL }

// train is how many of pkts go in one call: datagrams of one size, the last
// may be shorter, no more than one IP packet holds.
func (w *udpWriter) train(pkts [][]byte) int {
	size := len(pkts[0]) - w.ipLen()
	octets := size
	n := 1
	for n < len(pkts) && n < w.gso {
		next := len(pkts[n]) - w.ipLen()
		if next > size || octets+next > maxDatagram {
			break
		}
		octets += next
		n++
		if next < size {
			break
		}
	}
	return n
}

func (w *udpWriter) ipLen() int {
	if w.v6 {
		return packet.IPv6HeaderLen
	}
	return packet.IPv4HeaderLen
}

func (w *udpWriter) sendTrain(pkts [][]byte) error {
	skip := w.ipLen() + packet.UDPHeaderLen
	for i, p := range pkts {
		w.iovs[i].Base = &p[skip]
		w.iovs[i].SetLen(len(p) - skip)
	}
	first := pkts[0]
	h := &w.hdrs[0].hdr
	h.Namelen = w.setDestination(first, binary.BigEndian.Uint16(first[w.ipLen()+2:]))
	h.Name = w.nameBytes()
	h.Iov = &w.iovs[0]
	h.SetIovlen(len(pkts))
	ctl := w.controlFor(first)
	if len(pkts) > 1 {
		ctl = appendCmsg(ctl, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)
		binary.NativeEndian.PutUint16(cmsgData(ctl, 2), uint16(len(first)-skip))
	}
	h.Control = &ctl[0]
	h.SetControllen(len(ctl))
	_, err := w.send(1)
	return err
}

// controlFor says source address, TOS and TTL of the packet by control messages.
func (w *udpWriter) controlFor(pkt []byte) []byte {
	if w.v6 {
		ctl := appendCmsg(w.ctl[:0], unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		info := (*unix.Inet6Pktinfo)(unsafe.Pointer(&cmsgData(ctl, unix.SizeofInet6Pktinfo)[0]))
		*info = unix.Inet6Pktinfo{Addr: [16]byte(pkt[8:24])}
		ctl = appendCmsg(ctl, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 4)
		binary.NativeEndian.PutUint32(cmsgData(ctl, 4), uint32(packet.TOS(pkt)))
		ctl = appendCmsg(ctl, unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, 4)
		binary.NativeEndian.PutUint32(cmsgData(ctl, 4), uint32(pkt[7]))
		return ctl
	}
	ctl := appendCmsg(w.ctl[:0], unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
	info := (*unix.Inet4Pktinfo)(unsafe.Pointer(&cmsgData(ctl, unix.SizeofInet4Pktinfo)[0]))
	*info = unix.Inet4Pktinfo{Spec_dst: [4]byte(pkt[12:16])}
	ctl = appendCmsg(ctl, unix.IPPROTO_IP, unix.IP_TOS, 4)
	binary.NativeEndian.PutUint32(cmsgData(ctl, 4), uint32(packet.TOS(pkt)))
	ctl = appendCmsg(ctl, unix.IPPROTO_IP, unix.IP_TTL, 4)
	binary.NativeEndian.PutUint32(cmsgData(ctl, 4), uint32(pkt[8]))
	return ctl
}

// appendCmsg adds a control message with room for n octets of data.
func appendCmsg(ctl []byte, level, kind int32, n int) []byte {
	at := len(ctl)
	ctl = ctl[:at+unix.CmsgSpace(n)]
	h := (*unix.Cmsghdr)(unsafe.Pointer(&ctl[at]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(n))
	return ctl
}

// cmsgData is the data of the last message, of n octets.
func cmsgData(ctl []byte, n int) []byte {
	return ctl[len(ctl)-unix.CmsgSpace(n)+unix.CmsgLen(0):][:n]
}
