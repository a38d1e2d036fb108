package dataplane

import (
	"math/rand/v2"

	"ipsecd/dataplane/link"
	"ipsecd/dataplane/xform"
	"ipsecd/packet"
	"ipsecd/sad"
	"ipsecd/spd"
)

// trainSize is room for a burst of MaxBurst packets of common size, and for a
// few of the longest.
const trainSize = 256 << 10

// Inside is a worker for what comes from the host:
//
//	link.Read -> Classify -> SPD -> Reserve -> Seal -> link.Write
//	                |malformed  |discard |none: bypass  |no SA
type Inside struct {
	e     *Engine
	from  link.Inside
	wires wireWriters
	x     *xform.Worker
	cache *flowCache
	burst packet.Burst
	train *packet.Train
}

// wireWriters is this worker's end of Wires.
type wireWriters struct {
	raw4, raw6, udp4, udp6, bypass4, bypass6 link.PacketWriter

	port uint16
}

// NewInside returns a worker that reads from one queue of the host's side.
func (e *Engine) NewInside(from link.Inside, w Wires) *Inside {
	return &Inside{
		e: e, from: from, x: xform.NewWorker(uint16(rand.Uint32())), cache: newFlowCache(), train: packet.NewTrain(trainSize),
		wires: wireWriters{
			raw4: writerOf(w.Raw4), raw6: writerOf(w.Raw6), udp4: writerOf(w.UDP4), udp6: writerOf(w.UDP6),
			bypass4: writerOf(w.Bypass4), bypass6: writerOf(w.Bypass6),
			port: w.UDPPort,
		},
	}
}

func writerOf(l link.Outside) link.PacketWriter {
	if l == nil {
		return nil
	}
	return l.Writer()
}

// Run works until the link is closed, then returns nil.
func (w *Inside) Run() error {
	for {
		if err := w.from.Read(&w.burst); err != nil {
			if stopped(err) {
				return nil
			}
			return err
		}
		w.handle(&w.burst)
	}
}

// handle takes one burst to its end.
func (w *Inside) handle(b *packet.Burst) {
	if d := b.Classify(); d != packet.Kept {
		w.e.Drops.Add(d, b.Len())
		return
	}
	now := w.e.Now()
	e := w.cache.outbound(w.e, &b.H.Flow)
	if e.policy == nil {
		w.bypass(b)
		return
	}
	if e.policy.LastUsed.Load() != now {
		e.policy.LastUsed.Store(now)
	}
	switch {
	case e.policy.Action == spd.Discard:
		w.e.Drops.Add(packet.PolicyDiscard, b.Len())
	case e.policy.Action == spd.None:
		w.bypass(b)
	case e.sa == nil:
		w.e.Drops.Add(packet.NoSA, b.Len())
	default:
		w.protect(e, b, now)
	}
}

// protect seals the packets of b under the SA of their flow and sends them. The
// SA may be replaced meanwhile: then the rest goes under its successor.
func (w *Inside) protect(e *flowEntry, b *packet.Burst, now int64) {
	for k := 0; k < b.Len(); {
		out := w.wires.forSA(e.sa)
		if out == nil {
			w.e.Drops.Add(packet.NoLink, b.Len()-k)
			return
		}
		g := e.sa.Reserve(b.Len() - k)
		if g.N == 0 {
			if d := w.without(e); d != packet.Kept {
				w.e.Drops.Add(d, b.Len()-k)
				return
			}
			continue
		}
		k += w.sealAndSend(e.sa, g, b, k, out, now)
	}
}

// without looks for another SA for a flow whose SA grants nothing any more. Kept
// says that e has one.
func (w *Inside) without(e *flowEntry) packet.Drop {
	if !e.sa.Retired() {
		return packet.SeqExhausted
	}
	next := outboundSA(w.e.SAD, e.policy)
	if next == nil || next == e.sa {
		return packet.NoSA
	}
	e.sa = next
	return packet.Kept
}

// sealAndSend uses up a grant for packets of b from k on, and returns how many
// those were.
func (w *Inside) sealAndSend(sa *sad.SA, g sad.Grant, b *packet.Burst, k int, out link.PacketWriter, now int64) int {
	total := g.N
	for g.N > 0 {
		w.train.Reset()
		n := w.x.SealESP(sa, g, b, k, w.train)
		if n == 0 { // longer than any datagram
			w.e.Drops.Add(packet.TooBig, g.N)
			break
		}
		octets := 0
		for _, p := range w.train.Pkts {
			octets += len(p)
		}
		sa.Count(n, octets, now)
		w.send(out)
		k += n
		g = sad.Grant{Seq: g.Seq + uint64(n), IV: g.IV + uint64(n), N: g.N - n}
	}
	return total
}

// bypass sends the packets of b on as they are, by the route they would have
// had. What is bound for the TUN's own link stays there: on another it would be
// a stranger, and by the TUN it would come back.
func (w *Inside) bypass(b *packet.Burst) {
	out := w.wires.bypass4
	if b.H.V == 6 {
		out = w.wires.bypass6
	}
	if out == nil {
		w.e.Drops.Add(packet.NoLink, b.Len())
		return
	}
	if !b.H.Dst.Unicast() {
		w.e.Drops.Add(packet.NotUnicast, b.Len())
		return
	}
	if w.e.Hop && !packet.DecrementTTL(b.Head) {
		w.e.Drops.Add(packet.TTLExceeded, b.Len())
		return
	}
	w.train.Reset()
	for k := range b.Len() {
		p := w.train.Next(b.PacketLen(k))
		if p == nil {
			w.e.Drops.Add(packet.TooBig, b.Len()-k)
			break
		}
		b.CopyPacket(p, k)
	}
	w.e.Bypassed.Add(uint64(len(w.train.Pkts)))
	w.send(out)
}

// send writes the train; a packet that the kernel refuses does not keep the
// ones behind it.
func (w *Inside) send(out link.PacketWriter) {
	for pkts := w.train.Pkts; len(pkts) > 0; {
		n, err := out.Write(pkts)
		if err == nil {
			return
		}
		if stopped(err) {
			return
		}
		w.e.Drops.Add(dropFor(err), 1)
		pkts = pkts[n+1:]
	}
}

func (w *wireWriters) forSA(sa *sad.SA) link.PacketWriter {
	s := sa.Spec()
	encap := s.Encap != (sad.Encap{})
	switch {
	case encap && s.Encap.SrcPort != w.port:
		return nil
	case s.Dst.Is4() && encap:
		return w.udp4
	case s.Dst.Is4():
		return w.raw4
	case encap:
		return w.udp6
	}
	return w.raw6
}
