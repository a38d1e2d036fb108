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
// both modes and families, raw and encapsulated, two packets a read: it does not
// panic, and each packet comes through or is counted once.
func FuzzOutside(f *testing.F) {
	w := newHandDriven(f)
	w.load(f, "flush;"+strings.ReplaceAll(sasOf(workerScript), "-r 32", "-r 0"))
	for third := range suites {
		b := lone(datagramFrom(third, 64))
		w.in.handle(&b)
		way := byte(asPacket)
		if third >= encapsulated {
			way = asDatagram
		}
		p := bytes.Clone(w.wire.last[:w.wire.len])
		f.Add(p, p, way, third)
		f.Add(textFor(third), textFor(third), byte(asText), third-1)
	}
	f.Add(textFor(1), trailed(datagramFrom(1, 9)[packet.IPv4HeaderLen:], packet.ProtoUDP), byte(asText), byte(len(suites)))
	f.Fuzz(func(t *testing.T, p, q []byte, way, suite byte) {
		var bursts []packet.Burst
		for _, octets := range [][]byte{p, q} {
			var b packet.Burst
			switch way % ways {
			case asPacket:
				arrived(&b, bytes.Clone(octets), false)
			case asDatagram:
				if len(octets) <= packet.IPv4HeaderLen+packet.UDPHeaderLen {
					continue // no socket delivers that
				}
				arrived(&b, bytes.Clone(octets), true)
			case asText:
				third := 1 + suite%byte(len(suites)+1)
				arrived(&b, sealedText(w, third, octets), third == encapsulated)
			}
			bursts = append(bursts, b)
		}
		before := w.host.n + total(w)
		w.out.handle(bursts)
		if n := w.host.n + total(w) - before; n != len(bursts) {
			t.Fatalf("%d counted, of %d packets", n, len(bursts))
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

// overIPv6 is an SA of any mode beside those of suites.
const overIPv6 = encapsulated + 1

// sasOf leaves out the policies of a script, and adds the SA over IPv6.
func sasOf(script string) string {
	sas := "add 2001:db8::1 2001:db8::2 esp 0x1006 -r 0 -E aes-gcm-16 0xab87c452e0602b13e1925c2962e635ad7b9d3f7b;"
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "add") {
			sas += line
		}
	}
	return sas
}

// destination is where the SA of a suite leads.
func destination(third byte) netip.Addr {
	switch third {
	case overIPv6:
		return netip.MustParseAddr("2001:db8::2")
	case 3, encapsulated:
		return netip.MustParseAddr("10.2.0.1")
	}
	return netip.MustParseAddr("192.0.2.2")
}

// sealedText is a packet under the SA of a suite that holds text, cut to whole
// blocks.
func sealedText(w *handDriven, third byte, text []byte) []byte {
	sa := w.SAD.Get(sad.ID{SPI: 0x1000 + uint32(third), Proto: sad.ProtoESP, Dst: destination(third)})
	s, front := sa.Suite, packet.IPv4HeaderLen
	switch third {
	case overIPv6:
		front = packet.IPv6HeaderLen
	case encapsulated:
		front += packet.UDPHeaderLen
	}
	text = text[:len(text)/s.Block*s.Block]
	p := make([]byte, front+crypto.HeaderLen+s.IVLen+len(text)+s.ICVLen)
	switch third {
	case overIPv6:
		(&packet.IPv6{HopLimit: 64, Next: packet.ProtoESP, Src: sa.Src, Dst: sa.Dst}).Put(p, len(p))
	case encapsulated:
		(&packet.IPv4{TTL: 64, Proto: packet.ProtoUDP, Src: sa.Src, Dst: sa.Dst}).Put(p, len(p))
		packet.PutUDP(p[packet.IPv4HeaderLen:], 4500, 4500, len(p)-packet.IPv4HeaderLen)
	default:
		(&packet.IPv4{TTL: 64, Proto: packet.ProtoESP, Src: sa.Src, Dst: sa.Dst}).Put(p, len(p))
	}
	esp := p[front:]
	binary.BigEndian.PutUint32(esp, sa.Spec().SPI)
	binary.BigEndian.PutUint32(esp[4:], 1)
	copy(esp[crypto.HeaderLen+s.IVLen:], text)
	s.NewCipher().Seal(new(crypto.Scratch), esp, 0, 1)
	return p
}
