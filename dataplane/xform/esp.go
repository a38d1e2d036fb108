package xform

import (
	"encoding/binary"

	"ipsecd/crypto"
	"ipsecd/packet"
	"ipsecd/sad"
)

// HeaderLen is SPI and sequence number, what every ESP packet begins with.
const HeaderLen = crypto.HeaderLen

// maxIPv4 is the longest IPv4 packet; an IPv6 one could have 40 octets more.
const maxIPv4 = 65535

// trailerLen is pad length and next header.
const trailerLen = 2

// SealESP seals packets of b, from packet k on, in tunnel mode and appends
// them to out as whole IP packets. It stops at the end of the grant, which it
// uses up from its start, when out is full, or at a packet that would be longer
// than IP allows, and returns how many it sealed.
//
// Each packet becomes (RFC 4303 section 2, RFC 3948 2.1):
//
//	outer IP | UDP, if encapsulated | SPI Seq | IV | inner IP packet | padding | pad length, next header | ICV
func (w *Worker) SealESP(sa *sad.SA, g sad.Grant, b *packet.Burst, k int, out *packet.Train) int {
	c := w.cipher(sa)
	if c == nil {
		return 0
	}
	t := w.tunnelTo(sa, b)
	next := byte(packet.ProtoIPv6)
	if b.H.V == 4 {
		next = packet.ProtoIPv4
	}
	for i := range g.N {
		n := b.PacketLen(k + i)
		espLen := sa.Suite.SealedLen(n)
		if t.len+espLen > maxIPv4 {
			return i
		}
		pkt := out.Next(t.len + espLen)
		if pkt == nil {
			return i
		}
		t.put(w, pkt)
		esp := pkt[t.len:]
		binary.BigEndian.PutUint32(esp, sa.Spec().SPI)
		binary.BigEndian.PutUint32(esp[4:], uint32(g.Seq)+uint32(i))
		text := esp[crypto.HeaderLen+sa.Suite.IVLen : espLen-sa.Suite.ICVLen]
		b.CopyPacket(text[:n], k+i)
		putTrailer(text, n, next)
		c.Seal(&w.scratch, esp, g.IV+uint64(i))
	}
	return g.N
}

// putTrailer fills what is behind the n octets of payload: padding 1, 2, 3...
// (RFC 4303 2.4), its length and the next header.
func putTrailer(text []byte, n int, next byte) {
	pad := text[n : len(text)-trailerLen]
	for i := range pad {
		pad[i] = byte(i + 1)
	}
	text[len(text)-2], text[len(text)-1] = byte(len(pad)), next
}

// OpenESP verifies and decrypts esp, from the SPI to the ICV, in place and
// returns the payload and the next header that it announces. What the padding
// holds is not looked at: the ICV covers it, and senders differ.
func (w *Worker) OpenESP(sa *sad.SA, esp []byte) (payload []byte, next uint8, d packet.Drop) {
	s := sa.Suite
	n := len(esp) - crypto.HeaderLen - s.IVLen - s.ICVLen
	if n < trailerLen {
		return nil, 0, packet.Truncated
	}
	if n%s.Block != 0 {
		return nil, 0, packet.BadLength
	}
	c := w.cipher(sa)
	if c == nil || !c.Open(&w.scratch, esp) {
		return nil, 0, packet.BadICV
	}
	text := esp[crypto.HeaderLen+s.IVLen:][:n]
	pad := int(text[n-2])
	if pad > n-trailerLen {
		return nil, 0, packet.BadPadding
	}
	return text[:n-trailerLen-pad], text[n-1], packet.Kept
}
