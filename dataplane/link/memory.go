package link

import (
	"os"
	"sync"

	"ipsecd/packet"
)

// Memory is a link without a file descriptor: what is put into it is read,
// what is written is kept. It serves as either side in tests and for captures.
// After Close what was put before is still read.
type Memory struct {
	in     chan []byte
	closed chan struct{}
	once   sync.Once

	mu  sync.Mutex
	out [][]byte
}

// NewMemory returns a link that holds up to n packets that nobody has read.
func NewMemory(n int) *Memory {
	return &Memory{in: make(chan []byte, n), closed: make(chan struct{})}
}

// Put makes pkt the next packet to be read.
func (m *Memory) Put(pkt []byte) { m.in <- pkt }

// Written returns all whole packets that were written since the last call.
func (m *Memory) Written() [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.out
	m.out = nil
	return out
}

func (m *Memory) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

func (m *Memory) next() ([]byte, error) {
	select {
	case p := <-m.in:
		return p, nil
	default:
	}
	select {
	case p := <-m.in:
		return p, nil
	case <-m.closed:
		return nil, os.ErrClosed
	}
}

// MemoryInside is Memory on the host's side.
type MemoryInside struct{ *Memory }

func (m MemoryInside) Read(b *packet.Burst) error {
	p, err := m.next()
	b.Seg, b.Head, b.Segs, b.Partial = packet.Lone, p, b.Segs[:0], false
	return err
}

func (m MemoryInside) Writer() BurstWriter { return m }

// Write keeps the packets of b one by one, with finished checksums.
func (m MemoryInside) Write(b *packet.Burst) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range b.Len() {
		p := make([]byte, b.PacketLen(k))
		b.CopyPacket(p, k)
		m.out = append(m.out, p)
	}
	return nil
}

// MemoryOutside is Memory on the wire's side. ESP in UDP is read as the
// encapsulation socket delivers it.
type MemoryOutside struct{ *Memory }

func (m MemoryOutside) Read(bs []packet.Burst) (int, error) {
	p, err := m.next()
	if err != nil {
		return 0, err
	}
	b := &bs[0]
	b.Seg, b.Head, b.Segs, b.Partial = packet.Lone, p, b.Segs[:0], false
	if b.Classify() == packet.Kept && b.H.Proto == packet.ProtoUDP {
		if hlen := b.H.L4 + packet.UDPHeaderLen; len(p) > hlen {
			b.Seg, b.Head, b.Segs = packet.UDP, p[:hlen:hlen], append(b.Segs, p[hlen:])
		}
	}
	return 1, nil
}

func (m MemoryOutside) Writer() PacketWriter { return m }

// Write keeps a copy of each packet.
func (m MemoryOutside) Write(pkts [][]byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range pkts {
		m.out = append(m.out, append([]byte(nil), p...))
	}
	return len(pkts), nil
}
