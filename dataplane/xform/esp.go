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

// SealESP seals packets of b, from packet k on, in a mode, tunnel or transport,
// and appends them to out as whole IP packets. It stops at the end of the grant,
// which it uses up from its start, when out is full, or at a packet that would be
// longer than IP allows, and returns how many it sealed.
//
// Each packet becomes (RFC 4303 section 2, RFC 3948 2.1):
//
//	outer IP | UDP, if encapsulated | SPI Seq | IV | inner IP packet | padding | pad length, next header | ICV
//	own IP   | UDP, if encapsulated | SPI Seq | IV | its payload     | padding | pad length, next header | ICV
func (w *Worker) SealESP(sa *sad.SA, mode sad.Mode, g sad.Grant, b *packet.Burst, k int, out *packet.Train) int {
	c, f := w.cipher(sa), frameOf(sa, mode, b)
	front, suite := f.octets(), sa.Suite
	hi := uint32(g.Seq >> 32) // one for the grant
	for i := range g.N {
		// 1. Room for the whole.
		n := b.PacketLen(k+i) - f.own
		espLen := suite.SealedLen(n)
		if front+espLen > maxIPv4 {
			return i
		}
		pkt := out.Next(front + espLen)
		if pkt == nil {
			return i
		}
		// 2. The packet, such that its payload stands where it is sealed. The
		// header that transport mode keeps is over ESP header and IV until put
		// moves it.
		esp := pkt[front:]
		text := esp[HeaderLen+suite.IVLen : espLen-suite.ICVLen]
		from := front + HeaderLen + suite.IVLen - f.own
		b.CopyPacket(pkt[from:from+f.own+n], k+i)
		f.put(w, pkt, from)
		// 3. What is round the payload.
		binary.BigEndian.PutUint32(esp, sa.Spec().SPI)
		binary.BigEndian.PutUint32(esp[4:], uint32(g.Seq)+uint32(i))
		w.putTrailer(text, n, f.next, sa.Spec().Pad)
		// 4. RFC 4303 3.3.2: encrypt, then authenticate.
		c.Seal(&w.scratch, esp, hi, g.IV+uint64(i))
	}
	return g.N
}

// OpenESP verifies and decrypts esp, from the SPI to the ICV, in place and
// returns its text: payload and trailer. hi is the high half of the sequence
// number that the packet is taken to have (RFC 4303 2.2.1).
func (w *Worker) OpenESP(sa *sad.SA, esp []byte, hi uint32) (text []byte, d packet.Drop) {
	s := sa.Suite
	n := len(esp) - HeaderLen - s.IVLen - s.ICVLen
	if n < trailerLen {
		return nil, packet.Truncated
	}
	if n%s.Block != 0 {
		return nil, packet.BadLength
	}
	if !w.cipher(sa).Open(&w.scratch, esp, hi) {
		return nil, packet.BadICV
	}
	return esp[HeaderLen+s.IVLen:][:n], packet.Kept
}
