package dataplane

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"ipsecd/dataplane/link"
	"ipsecd/packet"
	"ipsecd/sad"
)

// burstFrom is five datagrams of size octets in one read.
func burstFrom(third byte, size int) *packet.Burst {
	head := datagramFrom(third, 0)
	b := &packet.Burst{Seg: packet.UDP, Head: head, Partial: true, CsumStart: packet.IPv4HeaderLen, CsumOff: 6}
	b.Split(make([]byte, 5*size), size)
	return b
}

// What drops a burst counts each packet of it, in the engine and under the SA.
func TestBurstDrops(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		third  byte
		size   int
		change func(*handDriven, *packet.Burst)
		want   packet.Drop
		spi    uint32
	}{
		"malformed":   {"", 1, 50, func(_ *handDriven, b *packet.Burst) { b.Head[0] = 0x55 }, packet.BadVersion, 0},
		"discard":     {"spdadd 10.1.9.0/24 10.2.0.0/24 any -P out discard;", 9, 50, nil, packet.PolicyDiscard, 0},
		"no SA":       {"spdadd 10.1.9.0/24 10.2.0.0/24 any -P out ipsec esp/transport//require;", 9, 50, nil, packet.NoSA, 0},
		"no link":     {"", 1, 50, func(w *handDriven, _ *packet.Burst) { w.in.wires.raw4 = nil }, packet.NoLink, 0x1001},
		"too big":     {"", 1, 65500, nil, packet.TooBig, 0x1001},
		"not unicast": {"spdflush;", 1, 50, func(_ *handDriven, b *packet.Burst) { b.Head[16] = 224 }, packet.NotUnicast, 0},
		"TTL":         {"spdflush;", 1, 50, func(w *handDriven, b *packet.Burst) { w.Hop = true; b.Head[8] = 1 }, packet.TTLExceeded, 0},
		"no bypass":   {"spdflush;", 1, 50, func(w *handDriven, _ *packet.Burst) { w.in.wires.bypass4 = nil }, packet.NoLink, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHandDriven(t)
			w.load(t, c.script)
			b := burstFrom(c.third, c.size)
			if c.change != nil {
				c.change(w, b)
			}
			w.in.handle(b)
			if n := w.Drops.Get(c.want); n != 5 || total(w) != 5 || w.wire.n+w.clear.n != 0 {
				t.Errorf("%d dropped as %v, %d in all, %d left", n, c.want, total(w), w.wire.n+w.clear.n)
			}
			if c.spi == 0 {
				return
			}
			sa := w.SAD.Get(sad.ID{SPI: c.spi, Proto: sad.ProtoESP, Dst: near192(2)})
			if d := sa.Drops(); d == nil || d.Get(c.want) != 5 {
				t.Errorf("the SA counts %v", d)
			}
		})
	}
}

// choosy is a wire that refuses every third packet.
type choosy struct {
	link.Outside
	seen int
	all  bool // it takes all
	took [][]byte
}

func (c *choosy) Writer() link.PacketWriter { return c }

func (c *choosy) Write(pkts [][]byte) (int, error) {
	for i, p := range pkts {
		if c.seen++; !c.all && c.seen%3 == 0 {
			return i, link.ErrTooBig
		}
		c.took = append(c.took, bytes.Clone(p))
	}
	return len(pkts), nil
}

// A packet that the wire refuses keeps none back of those behind it, nor is any
// sent twice.
func TestRefusedInTheMiddle(t *testing.T) {
	w := newHandDriven(t)
	wire := new(choosy)
	w.in.wires.raw4 = wire
	b := burstFrom(1, 50)
	w.in.handle(b)
	w.in.handle(b)
	var seqs []uint32
	for _, p := range wire.took {
		seqs = append(seqs, binary.BigEndian.Uint32(p[packet.IPv4HeaderLen+4:]))
	}
	if want := []uint32{1, 2, 4, 5, 7, 8, 10}; !slices.Equal(seqs, want) || w.Drops.Get(packet.TooBig) != 3 {
		t.Errorf("numbers %v left, %d dropped; want %v", seqs, w.Drops.Get(packet.TooBig), want)
	}
	sa := w.SAD.Get(sad.ID{SPI: 0x1001, Proto: sad.ProtoESP, Dst: near192(2)})
	if n := sa.Drops().Get(packet.TooBig); n != 3 {
		t.Errorf("the SA counts %d", n)
	}
}

// What an SA counts: outbound the octets of whole packets on the wire, inbound
// those of what came out, and when; and its policies when they were used.
func TestAccounting(t *testing.T) {
	w := newHandDriven(t)
	b := burstFrom(1, 50)
	w.in.handle(b)
	sa := w.SAD.Get(sad.ID{SPI: 0x1001, Proto: sad.ProtoESP, Dst: near192(2)})
	sealed := packet.IPv4HeaderLen + sa.Suite.SealedLen(packet.IPv4HeaderLen+packet.UDPHeaderLen+50)
	u := sa.Usage()
	if u.Packets != 5 || u.Bytes != uint64(5*sealed) || u.FirstUse != 1 || u.LastUse != 1 {
		t.Errorf("outbound %+v, want %d octets", u, 5*sealed)
	}
	w.out.handle([]packet.Burst{lone(bytes.Clone(w.wire.last[:w.wire.len]))})
	if in := sa.Usage(); in.Packets != 6 || in.Bytes != u.Bytes+78 {
		t.Errorf("inbound %+v, behind %+v", in, u)
	}
	for p := range w.SPD.All() {
		used := int64(0)
		if p.Sel.Src == netip.MustParsePrefix("10.1.1.0/24") {
			used = 1
		}
		if p.LastUsed.Load() != used {
			t.Errorf("%v %v was used at %d", p.Dir, p.Sel, p.LastUsed.Load())
		}
	}
}

// refusing is a host that takes no burst.
type refusing struct{}

func (refusing) Write(*packet.Burst) error { return link.ErrTooBig }

// A burst that the host refuses is as many packets as were joined in it.
func TestNotDeliveredBurst(t *testing.T) {
	w := newHandDriven(t)
	wire := &choosy{all: true}
	w.in.wires.raw4 = wire
	w.in.handle(burstFrom(1, 50))
	w.out.to, w.out.join.UDP = refusing{}, true
	var read []packet.Burst
	for _, p := range wire.took {
		read = append(read, lone(p))
	}
	w.out.handle(read)
	if n := w.Drops.Get(packet.NotDelivered); n != 5 || total(w) != 5 {
		t.Errorf("%d of 5 dropped as not delivered, %d in all", n, total(w))
	}
}
