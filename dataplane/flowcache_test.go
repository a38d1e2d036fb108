package dataplane

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"ipsecd/packet"
	"ipsecd/sad"
)

// Flows that share a slot of the cache keep each their own policy and SA, in both
// directions. There are more flows than slots.
func TestCacheSlotsAreShared(t *testing.T) {
	w := newHandDriven(t)
	var plain [2 * flowSlots][]byte
	for i := range plain {
		p := datagramFrom(byte(1+i%2), 30) // GCM under 0x1001, CBC under 0x1002
		binary.BigEndian.PutUint16(p[packet.IPv4HeaderLen:], uint16(i))
		plain[i] = p
	}
	for range 2 {
		for _, i := range rand.Perm(len(plain)) {
			b := lone(bytes.Clone(plain[i]))
			w.in.handle(&b)
			sealed := w.wire.last[:w.wire.len]
			if spi := binary.BigEndian.Uint32(sealed[packet.IPv4HeaderLen:]); spi != 0x1001+uint32(i%2) {
				t.Fatalf("flow %d is sealed under %#x", i, spi)
			}
			w.out.handle([]packet.Burst{lone(bytes.Clone(sealed))})
		}
	}
	if w.host.n != 2*len(plain) || total(w) != 0 {
		t.Errorf("%d of %d came out, %d dropped", w.host.n, 2*len(plain), total(w))
	}
}

// Flows that arrive under one SA keep each their own verdict, of which a policy discards one half.
func TestInboundCacheSlotsAreShared(t *testing.T) {
	w := newHandDriven(t)
	w.load(t, `spddelete 10.1.1.0/24 10.2.0.0/24 any -P in; spdadd 10.1.1.0/24 10.2.0.0/24[10] udp -P in discard;
		spdadd 10.1.1.0/24 10.2.0.0/24 any -P in ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:1;`)
	for i := range 4 * flowSlots {
		p := datagramFrom(1, 30)
		binary.BigEndian.PutUint16(p[packet.IPv4HeaderLen:], uint16(rand.IntN(2*flowSlots)))
		binary.BigEndian.PutUint16(p[packet.IPv4HeaderLen+2:], uint16(9+i%2))
		b := lone(p)
		w.in.handle(&b)
		w.out.handle([]packet.Burst{lone(bytes.Clone(w.wire.last[:w.wire.len]))})
	}
	if n := w.Drops.Get(packet.PolicyDiscard); n != 2*flowSlots || w.host.n != 2*flowSlots {
		t.Errorf("%d came out, %d discarded, want %d of each", w.host.n, n, 2*flowSlots)
	}
	sa := w.SAD.Get(sad.ID{SPI: 0x1001, Proto: sad.ProtoESP, Dst: near192(2)})
	if n := sa.Drops().Get(packet.PolicyDiscard); n != 2*flowSlots {
		t.Errorf("the SA counts %d", n)
	}
}

// What a worker remembers of a flow that arrives is for the SA and the mode that it
// came under: under another, the policy is asked again.
func TestInboundCacheKnowsSAAndMode(t *testing.T) {
	w := newHandDriven(t)
	w.load(t, `add 192.0.2.1 192.0.2.2 esp 0x2000 -m any -u 7 -E aes-gcm-16 0xab87c452e0602b13e1925c2962e635ad7b9d3f7b;`)
	right := w.SAD.Get(sad.ID{SPI: 0x1001, Proto: sad.ProtoESP, Dst: near192(2)})
	other := w.SAD.Get(sad.ID{SPI: 0x2000, Proto: sad.ProtoESP, Dst: near192(2)})
	b := lone(datagramFrom(1, 30))
	if d := b.Classify(); d != packet.Kept {
		t.Fatal(d)
	}
	f := b.H.Flow
	for i, c := range []struct {
		sa   *sad.SA
		mode sad.Mode
		want packet.Drop
	}{
		{right, sad.ModeTunnel, packet.Kept},
		{right, sad.ModeTransport, packet.PolicyClash},
		{right, sad.ModeTunnel, packet.Kept},
		{other, sad.ModeTunnel, packet.PolicyClash},
		{right, sad.ModeTunnel, packet.Kept},
	} {
		if got := w.out.cache.inbound(w.Engine, &f, c.sa, c.mode).verdict; got != c.want {
			t.Errorf("step %d: %v, want %v", i, got, c.want)
		}
	}
}

// A newer SA takes over a flow that the cache knows.
func TestNewerSATakesOver(t *testing.T) {
	w := newHandDriven(t)
	for i, want := range []uint32{0x1001, 0x3001} {
		if i > 0 {
			w.load(t, "add 192.0.2.1 192.0.2.2 esp 0x3001 -m tunnel -u 1 -E aes-gcm-16 0xcb87c452e0602b13e1925c2962e635ad7b9d3f7b;")
		}
		b := lone(datagramFrom(1, 30))
		w.in.handle(&b)
		if spi := binary.BigEndian.Uint32(w.wire.last[packet.IPv4HeaderLen:]); spi != want {
			t.Errorf("sealed under %#x, want %#x", spi, want)
		}
	}
}
