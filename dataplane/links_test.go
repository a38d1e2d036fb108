package dataplane

import (
	"bytes"
	"testing"

	"ipsecd/packet"
)

// One SPI may be that of several SAs, to several addresses of ours: also within
// one read.
func TestOneSPIToTwoAddresses(t *testing.T) {
	w := newHandDriven(t)
	w.load(t, `spdflush; add 192.0.2.1 192.0.2.3 esp 0x1001 -m tunnel -u 9 -r 32 -E aes-gcm-16 0xdb87c452e0602b13e1925c2962e635ad7b9d3f7b;
		spdadd 10.1.1.0/24 10.2.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:1;
		spdadd 10.1.9.0/24 10.2.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.3/unique:9;`)
	var read []packet.Burst
	for _, third := range []byte{1, 9, 1, 9} {
		b := lone(datagramFrom(third, 30))
		w.in.handle(&b)
		read = append(read, lone(bytes.Clone(w.wire.last[:w.wire.len])))
	}
	w.out.handle(read)
	if w.host.n != 4 || total(w) != 0 {
		t.Errorf("%d of 4 came out, %d dropped", w.host.n, total(w))
	}
}

// What passes as it is leaves by the wire of its family.
func TestBypassByFamily(t *testing.T) {
	w := newHandDriven(t)
	var six counting
	w.in.wires.bypass6 = countingWire{to: &six}
	p := make([]byte, packet.IPv6HeaderLen+packet.UDPHeaderLen)
	h := packet.IPv6{HopLimit: 9, Next: packet.ProtoUDP, Src: packet.Addr{0x20, 1}, Dst: packet.Addr{0x20, 2}}
	h.Put(p, len(p))
	packet.PutUDP(p[packet.IPv6HeaderLen:], 9, 9, packet.UDPHeaderLen)
	b := lone(p)
	w.in.handle(&b)
	c := lone(datagramFrom(99, 10))
	w.in.handle(&c)
	if six.n != 1 || w.clear.n != 1 || w.clear.last[0]>>4 != 4 {
		t.Errorf("%d by IPv6, %d by IPv4", six.n, w.clear.n)
	}
}
