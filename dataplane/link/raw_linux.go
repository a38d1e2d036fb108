package link

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"ipsecd/packet"
)

// maxIP is the longest IP packet that a raw socket delivers: the kernel has
// reassembled it.
const maxIP = 65535

// ipv6FlowInfo is IPV6_FLOWINFO of linux/in6.h: traffic class and flow label
// of what arrives.
const ipv6FlowInfo = 11

// rawSocket is a raw IP socket that sends headers as they are given
// (IP_HDRINCL, IPV6_HDRINCL).
type rawSocket struct {
	*socket
	r     *receiver
	v6    bool
	proto uint8
	out   *rawSocket // that sends in its place; nil: it sends itself

	head    []byte // that cmsg6 fills
	onCmsg6 func(level, kind int32, data []byte)
}

// OpenRaw opens a raw socket for one IP protocol. While it is open the kernel
// does not answer "protocol unreachable". What it sends carries mark.
func OpenRaw(v6 bool, proto int, mark uint32) (Outside, error) {
	return openRaw(v6, proto, mark, true)
}

// OpenBypass opens a raw socket of one family that sends packets of any
// protocol and receives nothing.
func OpenBypass(v6 bool, mark uint32) (Outside, error) {
	return openRaw(v6, unix.IPPROTO_RAW, mark, false)
}

func openRaw(v6 bool, proto int, mark uint32, receive bool) (*rawSocket, error) {
	family := unix.AF_INET
	opts := []sockopt{{unix.IPPROTO_IP, unix.IP_HDRINCL, 1, "IP_HDRINCL"}}
	if v6 {
		family = unix.AF_INET6
		opts = []sockopt{
			{unix.IPPROTO_IPV6, unix.IPV6_HDRINCL, 1, "IPV6_HDRINCL"},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO"},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1, "IPV6_RECVTCLASS"},
			{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1, "IPV6_RECVHOPLIMIT"},
			{unix.IPPROTO_IPV6, ipv6FlowInfo, 1, "IPV6_FLOWINFO"},
		}
	}
	if v6 && receive {
		opts = append(opts, sockopt{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1, "IPV6_RECVERR"})
	}
	fd, err := openSocket(family, unix.SOCK_RAW, proto, mark, opts)
	if err != nil {
		return nil, fmt.Errorf("raw socket for protocol %d: %w", proto, err)
	}
	s, err := newSocket(fd, "raw")
	if err != nil {
		return nil, err
	}
	raw := &rawSocket{socket: s, v6: v6, proto: uint8(proto)}
	if !receive {
		return raw, nil
	}
	if v6 {
		// An error that is queued while the send buffer is full would look to the
		// runtime's poller like the end of the descriptor, and would take the
		// place of a send's own result: so another socket sends.
		if raw.out, err = openRaw(true, unix.IPPROTO_RAW, mark, false); err != nil {
			s.Close()
			return nil, err
		}
	}
	skip, ctl := 0, 0
	if v6 {
		skip, ctl = packet.IPv6HeaderLen, 128
	}
	raw.r = newReceiver(s, ReadBatch, maxIP, skip, ctl)
	raw.r.errors = v6
	raw.onCmsg6 = raw.cmsg6
	return raw, nil
}

func (s *rawSocket) Read(bs []packet.Burst) (int, error) {
	n, err := s.r.receive()
	if err != nil {
		return 0, err
	}
	for i := range n {
		b := &bs[i]
		pkt := s.r.bufs[i][:s.r.hdrs[i].n]
		if s.v6 {
			pkt = s.rebuild6(i)
		}
		b.Seg, b.Head, b.Segs, b.Partial = packet.Lone, pkt, b.Segs[:0], false
	}
	return n, nil
}

// rebuild6 puts an IPv6 header in front of message i, of which the kernel
// passes the payload alone (RFC 3542 3).
func (s *rawSocket) rebuild6(i int) []byte {
	n := packet.IPv6HeaderLen + int(s.r.hdrs[i].n)
	pkt := s.r.bufs[i][:n]
	h := packet.IPv6{Next: s.proto, Src: s.r.names[i].Addr}
	h.Put(pkt, n)
	s.head = pkt
	s.r.control(i, s.onCmsg6)
	return pkt
}

// cmsg6 fills fields of the header at s.head from one control message.
func (s *rawSocket) cmsg6(level, kind int32, data []byte) {
	if level != unix.IPPROTO_IPV6 || len(data) < 4 {
		return
	}
	switch kind {
	case unix.IPV6_PKTINFO:
		copy(s.head[24:40], data)
	case unix.IPV6_TCLASS:
		packet.SetTOS(s.head, byte(binary.NativeEndian.Uint32(data)))
	case unix.IPV6_HOPLIMIT:
		s.head[7] = byte(binary.NativeEndian.Uint32(data))
	case ipv6FlowInfo:
		s.head[1] = s.head[1]&0xf0 | data[1]&0x0f
		copy(s.head[2:4], data[2:4])
	}
}

func (s *rawSocket) Close() error {
	err := s.socket.Close()
	if s.out != nil {
		err = errors.Join(err, s.out.Close())
	}
	return err
}

func (s *rawSocket) Writer() PacketWriter {
	if s.out != nil {
		return s.out.Writer()
	}
	return &rawWriter{newSender(s.socket, packet.MaxBurst, packet.MaxBurst)}
}

type rawWriter struct{ *sender }

func (w *rawWriter) Write(pkts [][]byte) (int, error) {
	sent := 0
	for sent < len(pkts) {
		n := min(len(pkts)-sent, len(w.hdrs))
		namelen := w.setDestination(pkts[sent], 0)
		for i, p := range pkts[sent : sent+n] {
			w.iovs[i].Base = &p[0]
			w.iovs[i].SetLen(len(p))
			h := &w.hdrs[i].hdr
			h.Name, h.Namelen = w.nameBytes(), namelen
			h.Iov = &w.iovs[i]
			h.SetIovlen(1)
		}
		k, err := w.send(n)
		sent += k
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}
