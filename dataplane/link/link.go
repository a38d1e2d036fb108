// Package link is everything that touches a file descriptor on the packet
// path: the TUN device on the host's side, raw IP and UDP-encapsulation
// sockets on the wire's. Links move whole IP packets, outer header included,
// in both families, and know nothing of SAs.
//
// A link owns its descriptor and the buffers that it reads into. Its Read belongs
// to one goroutine, and so does each Writer; different goroutines may hold one
// each. After Close, which may be called from anywhere, Read and Write return an
// error that is os.ErrClosed. Nothing is allocated per packet.
//
// RFC 3948 (UDP encapsulation), RFC 3542 (IPv6 ancillary data),
// linux/virtio_net.h (the header in front of a TUN packet).
package link

import "ipsecd/packet"

// Inside is the host's side.
type Inside interface {
	// Read blocks for the next burst and fills b. The octets are valid until
	// the next Read.
	Read(b *packet.Burst) error
	Writer() BurstWriter
	Close() error
}

// TakesUDP is implemented by an Inside whose Writers take UDP bursts.
type TakesUDP interface{ TakesUDP() bool }

// BurstWriter hands packets to the host.
type BurstWriter interface {
	// Write hands over all packets of b. A burst that is not Lone must have
	// come out of a Coalescer.
	Write(b *packet.Burst) error
}

// Outside is the wire's side.
type Outside interface {
	// Read blocks until packets are there and fills bursts from the start of
	// bs; it returns how many, which may be none. A packet of a raw socket is Lone, a train of
	// UDP datagrams is a burst whose Head is the IP and UDP header of all of
	// them, with the length of the train. The octets are valid, and may be
	// changed, until the next Read.
	Read(bs []packet.Burst) (int, error)
	Writer() PacketWriter
	Close() error
}

// PacketWriter sends to the wire.
type PacketWriter interface {
	// Write sends whole IP packets of one outer flow, in order. It returns
	// how many the kernel took from the start, and why it refused the next:
	// ErrTooBig where its length is the reason.
	Write(pkts [][]byte) (int, error)
}

// ReadBatch is how many bursts an Outside fills at most in one Read.
const ReadBatch = 32
