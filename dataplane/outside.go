package dataplane

import (
	"encoding/binary"

	"ipsecd/dataplane/link"
	"ipsecd/dataplane/xform"
	"ipsecd/packet"
	"ipsecd/sad"
)

// Outside is a worker for what comes from the wire:
//
//	link.Read -> Classify -> SAD -> replay.Check -> Open -> replay.Accept -> unwrap -> verify -> link.Write
//	                |malformed |unknown SPI |replayed  |bad ICV              |bad inner |policy
type Outside struct {
	worker
	from   link.Outside
	to     link.BurstWriter
	bursts [link.ReadBatch]packet.Burst
	join   packet.Coalescer
	inner  packet.Headers
	room   *packet.Train // for what cannot be opened where it is

	// The SA of the last packet and what is not yet counted under it.
	sa              *sad.SA
	dst             packet.Addr
	packets, octets int
	now             int64
}

// NewOutside returns a worker that reads from one socket and writes to the
// host.
func (e *Engine) NewOutside(from link.Outside, to link.Inside) *Outside {
	w := &Outside{worker: newWorker(e), from: from, to: to.Writer(), room: packet.NewTrain(trainSize)}
	if t, ok := to.(link.TakesUDP); ok {
		w.join.UDP = t.TakesUDP()
	}
	return w
}

// Run works until the link is closed, then returns nil.
func (w *Outside) Run() error {
	defer w.sas.Close()
	for {
		n, err := w.from.Read(w.bursts[:])
		if err != nil {
			if stopped(err) {
				return nil
			}
			return err
		}
		w.handle(w.bursts[:n])
	}
}

// handle takes one read to its end.
func (w *Outside) handle(bs []packet.Burst) {
	w.enter()
	w.now = w.e.Now()
	for i := range bs {
		w.openBurst(&bs[i])
	}
	w.flush()
	w.forget()
	w.leave()
}

// openBurst opens what one outer header came with.
func (w *Outside) openBurst(b *packet.Burst) {
	if d := b.Classify(); d != packet.Kept {
		w.drop(nil, d, b.Len())
		return
	}
	switch {
	case b.Seg == packet.UDP:
		for _, datagram := range b.Segs {
			w.openDatagram(b, datagram)
		}
	case b.H.Proto == packet.ProtoESP && !b.H.Fragment:
		w.open(b, b.Head[b.H.L4:], false)
	default:
		w.drop(nil, packet.NotESP, 1)
	}
}

// open finds the SA of one ESP packet, from the SPI on, that came under b's
// header, and opens it.
func (w *Outside) open(b *packet.Burst, esp []byte, encap bool) {
	if len(esp) < xform.HeaderLen {
		w.drop(nil, packet.Truncated, 1)
		return
	}
	sa := w.lookup(binary.BigEndian.Uint32(esp), &b.H.Dst)
	if sa == nil {
		w.drop(nil, packet.UnknownSPI, 1)
		return
	}
	if encap != (sa.Encap() != sad.Encap{}) {
		w.drop(sa, packet.EncapMismatch, 1)
		return
	}
	w.drop(sa, w.openUnder(sa, b, esp), 1)
}

// openUnder opens a packet under its SA.
func (w *Outside) openUnder(sa *sad.SA, b *packet.Burst, esp []byte) packet.Drop {
	// RFC 4303 3.4.3: check before the ICV, accept after.
	seq := sa.Sequence(binary.BigEndian.Uint32(esp[4:]))
	if !sa.Window.Check(seq) {
		return packet.Replayed
	}
	text, d := w.x.OpenESP(sa, esp, uint32(seq>>32))
	if d != packet.Kept {
		return d
	}
	if !sa.Window.Accept(seq) {
		return packet.Replayed
	}
	payload, next, d := xform.TakeTrailer(text)
	if d != packet.Kept {
		return d
	}
	w.packets++
	w.octets += len(payload)
	if next == packet.ProtoNoNext {
		return packet.Dummy
	}
	if !xform.Decapsulates(sa, next) {
		return w.deliver(sa, sad.ModeTransport, w.transport(sa, b, payload, next))
	}
	inner, d := xform.OpenTunnel(payload, next, packet.TOS(b.Head))
	if d != packet.Kept {
		return d
	}
	return w.deliver(sa, sad.ModeTunnel, inner)
}

// transport makes the packet that came in transport mode.
func (w *Outside) transport(sa *sad.SA, b *packet.Burst, payload []byte, next uint8) []byte {
	if pkt := xform.OpenTransport(sa, b, payload, next, w.room); pkt != nil {
		return pkt
	}
	w.flush() // which empties the room: a datagram always fits
	return xform.OpenTransport(sa, b, payload, next, w.room)
}

// deliver hands an opened packet to the host if the policies agree.
func (w *Outside) deliver(sa *sad.SA, mode sad.Mode, inner []byte) packet.Drop {
	if w.inner.Classify(inner) != packet.Kept {
		return packet.BadInner
	}
	e := w.cache.inbound(w.e, &w.inner.Flow, sa, mode)
	if p := e.policy; p != nil && p.LastUsed.Load() != w.now {
		p.LastUsed.Store(w.now)
	}
	if e.verdict != packet.Kept {
		return e.verdict
	}
	if !w.join.Join(inner, &w.inner) {
		w.write()
		w.join.Start(inner, &w.inner)
	}
	return packet.Kept
}

// flush writes what was joined, after which nothing is in the room.
func (w *Outside) flush() {
	w.write()
	w.room.Reset()
}

// write hands over what was joined.
func (w *Outside) write() {
	b, ok := w.join.Burst()
	if !ok {
		return
	}
	n := b.Len()
	if err := w.to.Write(b); err != nil {
		w.drop(nil, packet.NotDelivered, n)
	}
}

// lookup finds the SA, which is most often that of the packet before.
func (w *Outside) lookup(spi uint32, dst *packet.Addr) *sad.SA {
	if w.sa != nil && w.sa.Spec().SPI == spi && w.dst == *dst {
		return w.sa
	}
	w.forget()
	w.sa, w.dst = w.e.SAD.Lookup(spi, sad.ProtoESP, (*[16]byte)(dst)), *dst
	return w.sa
}

// forget counts what was opened under the SA and lets go of it: the next read
// asks the database again.
func (w *Outside) forget() {
	if w.packets > 0 {
		w.sa.Count(w.packets, w.octets, w.now)
	}
	w.sa, w.packets, w.octets = nil, 0, 0
}
