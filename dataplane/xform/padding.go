package xform

import (
	"ipsecd/packet"
	"ipsecd/sad"
)

// trailerLen is pad length and next header.
const trailerLen = 2

// putTrailer fills what is behind the n octets of payload: padding, its length
// and the next header (RFC 4303 2.4).
func (w *Worker) putTrailer(text []byte, n int, next byte, kind sad.Padding) {
	pad := text[n : len(text)-trailerLen]
	switch kind {
	case sad.PadRandom:
		w.random.Read(pad)
	case sad.PadZero:
		clear(pad)
	default:
		for i := range pad {
			pad[i] = byte(i + 1)
		}
	}
	text[len(text)-2], text[len(text)-1] = byte(len(pad)), next
}

// TakeTrailer splits the text of an opened packet into payload and next header
// (RFC 4303 2.4). It is at least a trailer long. What the padding holds is not
// looked at: the ICV covers it, and senders differ.
func TakeTrailer(text []byte) (payload []byte, next uint8, d packet.Drop) {
	n := len(text) - trailerLen
	pad := int(text[n])
	if pad > n {
		return nil, 0, packet.BadPadding
	}
	return text[:n-pad], text[n+1], packet.Kept
}
