package dataplane

import (
	"runtime"

	"ipsecd/dataplane/link"
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
	worker
	from  link.Inside
	wires wireWriters
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
		worker: newWorker(e), from: from, train: packet.NewTrain(trainSize),
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
	defer w.sas.Close()
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
		w.drop(nil, d, b.Len())
		return
	}
	w.enter()
	w.apply(w.cache.outbound(w.e, &b.H.Flow), b, w.e.Now())
	w.leave()
}

// apply does with b what the policy of its flow says.
func (w *Inside) apply(e *flowEntry, b *packet.Burst, now int64) {
	if e.policy == nil {
		w.bypass(b)
		return
	}
	if e.policy.LastUsed.Load() != now {
		e.policy.LastUsed.Store(now)
	}
	switch {
	case e.policy.Action == spd.Discard:
		w.drop(nil, packet.PolicyDiscard, b.Len())
	case e.policy.Action == spd.None:
		w.bypass(b)
	case e.sa == nil:
		w.drop(nil, packet.NoSA, b.Len())
	default:
		if d := unfit(e, b); d != packet.Kept {
			w.drop(e.sa, d, b.Len())
			return
		}
		w.protect(e, b, now)
	}
}

// unfit is why transport mode, if that is asked for, cannot take the packets of b.
func unfit(e *flowEntry, b *packet.Burst) packet.Drop {
	if e.mode != sad.ModeTransport {
		return packet.Kept
	}
	if b.H.Fragment {
		return packet.Fragment
	}
	plain := packet.IPv4HeaderLen
	if b.H.V == 6 {
		plain = packet.IPv6HeaderLen
	}
	if at, _ := b.H.TransportAt(b.Head); at != plain && e.sa.Encap() != (sad.Encap{}) {
		return packet.Options
	}
	return packet.Kept
}

// protect seals the packets of b under the SA of their flow and sends them. The
// SA may be replaced meanwhile: then the rest goes under its successor.
func (w *Inside) protect(e *flowEntry, b *packet.Burst, now int64) {
	for k := 0; k < b.Len(); {
		out := w.wires.forSA(e.sa)
		if out == nil {
			w.drop(e.sa, packet.NoLink, b.Len()-k)
			return
		}
		g := e.sa.Reserve(b.Len() - k)
		if g.N == 0 {
			if d := w.without(e); d != packet.Kept {
				w.drop(e.sa, d, b.Len()-k)
				return
			}
			continue
		}
		k += w.sealAndSend(e, g, b, k, out, now)
	}
}

// replacing bounds the wait for the successor of an SA that is being replaced,
// which takes its writer some microseconds.
const replacing = 1000

// without looks for another SA for a flow whose SA grants nothing any more. Kept
// says that e has one.
func (w *Inside) without(e *flowEntry) packet.Drop {
	if !e.sa.Retired() {
		return packet.SeqExhausted
	}
	for range replacing {
		next := outboundSA(w.e.SAD, e.policy, &e.flow)
		switch next {
		case nil:
			return packet.NoSA
		case e.sa: // retired, and its successor not there yet
			runtime.Gosched()
		default:
			e.sa = next
			return packet.Kept
		}
	}
	return packet.NoSA
}

// sealAndSend uses up a grant for packets of b from k on, and returns how many
// those were.
func (w *Inside) sealAndSend(e *flowEntry, g sad.Grant, b *packet.Burst, k int, out link.PacketWriter, now int64) int {
	total := g.N
	for g.N > 0 {
		w.train.Reset()
		n := w.x.SealESP(e.sa, e.mode, g, b, k, w.train)
		if n == 0 { // longer than any datagram
			w.drop(e.sa, packet.TooBig, g.N)
			break
		}
		octets := 0
		for _, p := range w.train.Pkts {
			octets += len(p)
		}
		e.sa.Count(n, octets, now)
		w.send(e.sa, out)
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
		w.drop(nil, packet.NoLink, b.Len())
		return
	}
	if !b.H.Dst.Unicast() {
		w.drop(nil, packet.NotUnicast, b.Len())
		return
	}
	if w.e.Hop && !packet.DecrementTTL(b.Head) {
		w.drop(nil, packet.TTLExceeded, b.Len())
		return
	}
	w.train.Reset()
	for k := range b.Len() {
		p := w.train.Next(b.PacketLen(k))
		if p == nil {
			w.drop(nil, packet.TooBig, b.Len()-k)
			break
		}
		b.CopyPacket(p, k)
	}
	w.e.Bypassed.Add(uint64(len(w.train.Pkts)))
	w.send(nil, out)
}

// send writes the train, sealed under sa unless that is nil; a packet that the
// kernel refuses does not keep the ones behind it.
func (w *Inside) send(sa *sad.SA, out link.PacketWriter) {
	for pkts := w.train.Pkts; len(pkts) > 0; {
		n, err := out.Write(pkts)
		if err == nil {
			return
		}
		if stopped(err) {
			return
		}
		w.drop(sa, dropFor(err), 1)
		pkts = pkts[n+1:]
	}
}

func (w *wireWriters) forSA(sa *sad.SA) link.PacketWriter {
	e, v4 := sa.Encap(), sa.Spec().Dst.Is4()
	encap := e != (sad.Encap{})
	switch {
	case encap && e.SrcPort != w.port:
		return nil
	case v4 && encap:
		return w.udp4
	case v4:
		return w.raw4
	case encap:
		return w.udp6
	}
	return w.raw6
}
