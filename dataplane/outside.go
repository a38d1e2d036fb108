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
//	link.Read -> Classify -> SAD -> replay.Check -> Open -> replay.Accept -> verify -> link.Write
//	                |malformed |unknown SPI |replayed  |bad ICV               |policy
type Outside struct {
	e      *Engine
	from   link.Outside
	to     link.BurstWriter
	x      *xform.Worker
	cache  *flowCache
	bursts [link.ReadBatch]packet.Burst
	join   packet.Coalescer
	inner  packet.Headers

	// The SA of the last packet and what is not yet counted under it.
	sa              *sad.SA
	dst             packet.Addr
	packets, octets int
	now             int64
}

// NewOutside returns a worker that reads from one socket and writes to the
// host.
func (e *Engine) NewOutside(from link.Outside, to link.Inside) *Outside {
	w := &Outside{e: e, from: from, to: to.Writer(), x: xform.NewWorker(0), cache: newFlowCache()}
	if t, ok := to.(link.TakesUDP); ok {
		w.join.UDP = t.TakesUDP()
	}
	return w
}

// Run works until the link is closed, then returns nil.
func (w *Outside) Run() error {
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
	w.now = w.e.Now()
	for i := range bs {
		w.openBurst(&bs[i])
	}
	w.flush()
	w.forget()
}

// openBurst opens what one outer header came with.
func (w *Outside) openBurst(b *packet.Burst) {
	if d := b.Classify(); d != packet.Kept {
		w.e.Drops.Add(d, b.Len())
		return
	}
	if b.Seg == packet.UDP {
		for _, datagram := range b.Segs {
			w.e.Drops.Add(w.openDatagram(b, datagram), 1)
		}
		return
	}
	d := packet.NotESP
	if b.H.Proto == packet.ProtoESP && !b.H.Fragment {
		d = w.open(b, b.Head[b.H.L4:], false)
	}
	w.e.Drops.Add(d, 1)
}

// openDatagram tells ESP from what else comes to the encapsulation port (RFC
// 3948 2.2, 2.3).
func (w *Outside) openDatagram(b *packet.Burst, p []byte) packet.Drop {
	switch {
	case len(p) == 1 && p[0] == 0xff:
		return packet.Keepalive
	case len(p) >= 4 && binary.BigEndian.Uint32(p) == 0:
		return packet.NonESPMarker
	}
	return w.open(b, p, true)
}

// open opens one ESP packet, from the SPI on, that came under b's header.
func (w *Outside) open(b *packet.Burst, esp []byte, encap bool) packet.Drop {
	if len(esp) < xform.HeaderLen {
		return packet.Truncated
	}
	sa := w.lookup(binary.BigEndian.Uint32(esp), &b.H.Dst)
	if sa == nil {
		return packet.UnknownSPI
	}
	if encap != (sa.Spec().Encap != sad.Encap{}) {
		return packet.EncapMismatch
	}
	// RFC 4303 3.4.3: check before the ICV, accept after.
	seq := uint64(binary.BigEndian.Uint32(esp[4:]))
	if !sa.Window.Check(seq) {
		return packet.Replayed
	}
	payload, next, d := w.x.OpenESP(sa, esp)
	if d != packet.Kept {
		return d
	}
	if !sa.Window.Accept(seq) {
		return packet.Replayed
	}
	w.packets++
	w.octets += len(payload)
	inner, d := xform.OpenTunnel(payload, next, packet.TOS(b.Head))
	if d != packet.Kept {
		return d
	}
	return w.deliver(sa, inner)
}

// deliver hands an opened packet to the host if the policies agree.
func (w *Outside) deliver(sa *sad.SA, inner []byte) packet.Drop {
	if w.inner.Classify(inner) != packet.Kept {
		return packet.BadInner
	}
	e := w.cache.inbound(w.e, &w.inner.Flow, sa)
	if p := e.policy; p != nil && p.LastUsed.Load() != w.now {
		p.LastUsed.Store(w.now)
	}
	if e.verdict != packet.Kept {
		return e.verdict
	}
	if !w.join.Join(inner, &w.inner) {
		w.flush()
		w.join.Start(inner, &w.inner)
	}
	return packet.Kept
}

// flush writes what was joined.
func (w *Outside) flush() {
	b, ok := w.join.Burst()
	if !ok {
		return
	}
	n := b.Len()
	if err := w.to.Write(b); err != nil {
		w.e.Drops.Add(packet.NotDelivered, n)
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
