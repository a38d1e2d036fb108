package dataplane

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"ipsecd/crypto"
	"ipsecd/packet"
	"ipsecd/sad"
)

// What FuzzOutside makes of its octets.
const (
	asPacket   = iota // a packet of a raw socket
	asDatagram        // an IP and UDP header and a datagram of encapsulation
	asText            // what an ESP packet holds, sealed with the right keys
	ways
)

// FuzzOutside throws anything at the inbound path of an engine with live SAs, in
// both modes, raw and encapsulated: it does not panic, and each packet comes
// through or is counted once.
func FuzzOutside(f *testing.F) {
	w := newHandDriven(f)
	w.load(f, "flush;"+strings.ReplaceAll(withoutPolicies(workerScript), "-r 32", "-r 0"))
	for third := range suites {
		b := lone(datagramFrom(third, 64))
		w.in.handle(&b)
		way := byte(asPacket)
		if third >= encapsulated {
			way = asDatagram
		}
		f.Add(bytes.Clone(w.wire.last[:w.wire.len]), way, third)
		f.Add(textFor(third), byte(asText), third-1)
	}
	f.Fuzz(func(t *testing.T, p []byte, way, suite byte) {
		var b packet.Burst
		switch way % ways {
		case asPacket:
			arrived(&b, bytes.Clone(p), false)
		case asDatagram:
			if len(p) <= packet.IPv4HeaderLen+packet.UDPHeaderLen {
				return // no socket delivers that
			}
			arrived(&b, bytes.Clone(p), true)
		case asText:
			third := 1 + suite%byte(len(suites))
			arrived(&b, sealedText(w, third, p), third >= encapsulated)
		}
		before := w.host.n + total(w)
		w.out.handle([]packet.Burst{b})
		if n := w.host.n + total(w) - before; n != 1 {
			t.Fatalf("%d counted, of one packet", n)
		}
	})
}

// trailed is payload with padding up to whole blocks of 16 octets and a trailer.
func trailed(payload []byte, next byte) []byte {
	n := 15 - (len(payload)+1)%16
	return append(append(bytes.Clone(payload), make([]byte, n)...), byte(n), next)
}

// textFor is what a packet of a suite's SA holds.
func textFor(third byte) []byte {
	plain := datagramFrom(third, 64)
	if strings.Contains(suites[third], "transport") {
		return trailed(plain[packet.IPv4HeaderLen:], packet.ProtoUDP)
	}
	return trailed(plain, packet.ProtoIPv4)
}

// The texts that the fuzzing starts from get through to the host.
func TestSealedText(t *testing.T) {
	for third, suite := range suites {
		w := newHandDriven(t)
		var b packet.Burst
		arrived(&b, sealedText(w, third, textFor(third)), third >= encapsulated)
		w.out.handle([]packet.Burst{b})
		if w.host.n != 1 || total(w) != 0 {
			t.Errorf("%s: %d through, %d dropped", suite, w.host.n, total(w))
		}
	}
}

func withoutPolicies(script string) (sas string) {
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "add") {
			sas += line
		}
	}
	return sas
}

// sealedText is a packet under the SA of a suite that holds text, cut to whole
// blocks.
func sealedText(w *handDriven, third byte, text []byte) []byte {
	dst := netip.AddrFrom4([4]byte{192, 0, 2, 2})
	if third == 3 || third >= encapsulated {
		dst = netip.AddrFrom4([4]byte{10, 2, 0, 1})
	}
	sa := w.SAD.Get(sad.ID{SPI: 0x1000 + uint32(third), Proto: sad.ProtoESP, Dst: dst})
	front := packet.IPv4HeaderLen
	if third >= encapsulated {
		front += packet.UDPHeaderLen
	}
	s := sa.Suite
	text = text[:len(text)/s.Block*s.Block]
	p := make([]byte, front+crypto.HeaderLen+s.IVLen+len(text)+s.ICVLen)
	h := packet.IPv4{TTL: 64, Proto: packet.ProtoESP, Src: sa.Src, Dst: sa.Dst}
	if third >= encapsulated {
		h.Proto = packet.ProtoUDP
		packet.PutUDP(p[packet.IPv4HeaderLen:], 4500, 4500, len(p)-packet.IPv4HeaderLen)
	}
	h.Put(p, len(p))
	esp := p[front:]
	binary.BigEndian.PutUint32(esp, sa.Spec().SPI)
	binary.BigEndian.PutUint32(esp[4:], 1)
	copy(esp[crypto.HeaderLen+s.IVLen:], text)
	s.NewCipher().Seal(new(crypto.Scratch), esp, 0, 1)
	return p
}
