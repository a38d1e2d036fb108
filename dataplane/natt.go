package dataplane

import (
	"encoding/binary"

	"ipsecd/packet"
)

// openDatagram tells ESP from what else comes to the encapsulation port (RFC
// 3948 2.2, 2.3).
func (w *Outside) openDatagram(b *packet.Burst, p []byte) {
	switch {
	case len(p) == 1 && p[0] == 0xff:
		w.drop(nil, packet.Keepalive, 1)
	case len(p) >= 4 && binary.BigEndian.Uint32(p) == 0:
		w.drop(nil, packet.NonESPMarker, 1)
	default:
		w.open(b, p, true)
	}
}
