package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"ipsecd/crypto"
	"ipsecd/crypto/alg"
	"ipsecd/dataplane"
	"ipsecd/dataplane/link"
	"ipsecd/packet"
	"ipsecd/sad"
)

const (
	testKey = "0x6b87c452e0602b13e1925c2962e635ad7b9d3f7b"

	// hostA and hostB are two ends of one raw and one encapsulated tunnel.
	hostA = `
add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -r 4 -u 1 -E aes-gcm-16 0x6b87c452e0602b13e1925c2962e635ad7b9d3f7b;
add 192.0.2.1[4500] 192.0.2.2[4500] esp-udp 0x1002 -m tunnel -r 4 -u 2 -E aes-gcm-16 0x7b87c452e0602b13e1925c2962e635ad7b9d3f7b;
spdadd 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:1;
spdadd 10.1.2.0/24 10.2.2.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:2;
spdadd 10.1.3.0/24 10.2.3.0/24 any -P out discard;
spdadd 10.1.4.0/24 10.2.4.0/24 any -P out none;
spdadd 10.1.5.0/24 10.2.5.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.3/require;
add 10.1.6.1 10.2.6.1 esp 0x1003 -m transport -E aes-gcm-16 0x8b87c452e0602b13e1925c2962e635ad7b9d3f7b;
spdadd 10.1.6.1 10.2.6.1 any -P out ipsec esp/transport//require;
add 10.1.7.1[4500] 10.2.7.1[4500] esp-udp 0x1004 -m transport -E aes-gcm-16 0x9b87c452e0602b13e1925c2962e635ad7b9d3f7b;
spdadd 10.1.7.1 10.2.7.1 any -P out ipsec esp/transport//require;
`
	hostB = `
add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -r 4 -u 1 -E aes-gcm-16 0x6b87c452e0602b13e1925c2962e635ad7b9d3f7b;
add 192.0.2.1[4500] 192.0.2.2[4500] esp-udp 0x1002 -m tunnel -r 4 -u 2 -E aes-gcm-16 0x7b87c452e0602b13e1925c2962e635ad7b9d3f7b;
spdadd 10.1.0.0/24 10.2.0.0/24 udp -P in ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:1;
spdadd 10.1.0.0/24 10.2.0.0/24 icmp -P in ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:2;
spdadd 10.1.0.0/24 10.2.0.0/24 tcp -P in discard;
`
)

// udp4 is an IPv4 packet with a UDP datagram of n octets of data.
func udp4(src, dst string, n int) []byte { return ip4(packet.ProtoUDP, src, dst, n+8) }

func ip4(proto uint8, src, dst string, n int) []byte {
	p := make([]byte, packet.IPv4HeaderLen+n)
	h := packet.IPv4{TTL: 64, Proto: proto, ID: 7, Src: addr(src), Dst: addr(dst)}
	h.Put(p, len(p))
	packet.PutUDP(p[packet.IPv4HeaderLen:], 1000, 2000, n)
	return p
}

// edit returns a copy of p with one octet changed.
func edit(p []byte, at int, to byte) []byte {
	p = bytes.Clone(p)
	if at < 0 {
		at += len(p)
	}
	p[at] = to
	return p
}

// sealText makes an ESP packet under hostA's raw SA of a text of the test's
// own choice.
func sealText(t *testing.T, seq uint32, text []byte) []byte {
	suite, err := crypto.NewSuite(crypto.Keys{Enc: alg.AESGCM16, EncKey: key(t)})
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, packet.IPv4HeaderLen+crypto.HeaderLen+suite.IVLen+len(text)+suite.ICVLen)
	h := packet.IPv4{TTL: 64, Proto: packet.ProtoESP, Src: addr("192.0.2.1"), Dst: addr("192.0.2.2")}
	h.Put(p, len(p))
	esp := p[packet.IPv4HeaderLen:]
	binary.BigEndian.PutUint32(esp, 0x1001)
	binary.BigEndian.PutUint32(esp[4:], seq)
	copy(esp[crypto.HeaderLen+suite.IVLen:], text)
	suite.Shared().Seal(new(crypto.Scratch), esp, 0, uint64(seq))
	return p
}

// routerAlert puts that IP option into p.
func routerAlert(p []byte) []byte {
	q := append(bytes.Clone(p[:20]), 0x94, 4, 0, 0)
	q = append(q, p[20:]...)
	q[0] = 0x46
	packet.SetNext(q, 9, p[9])
	return q
}

// asCE marks the outer header Congestion Experienced.
func asCE(p []byte) []byte {
	p = bytes.Clone(p)
	packet.SetTOS(p, 3)
	return p
}

// asUDP puts an outer UDP header in place of the raw one.
func asUDP(p []byte) []byte {
	esp := p[packet.IPv4HeaderLen:]
	return datagram(esp)
}

func datagram(payload []byte) []byte {
	q := make([]byte, packet.IPv4HeaderLen+packet.UDPHeaderLen+len(payload))
	h := packet.IPv4{TTL: 64, Proto: packet.ProtoUDP, Src: addr("192.0.2.1"), Dst: addr("192.0.2.2")}
	h.Put(q, len(q))
	packet.PutUDP(q[packet.IPv4HeaderLen:], 4500, 4500, len(q)-packet.IPv4HeaderLen)
	copy(q[packet.IPv4HeaderLen+packet.UDPHeaderLen:], payload)
	return q
}

// inbound names, for each reason that a packet from the wire is dropped for,
// packets of which the last is dropped so and the others get through.
func inbound(t *testing.T) map[packet.Drop][][]byte {
	a := newTestEngine(t)
	a.load(t, hostA)
	sealed, _ := a.send(udp4("10.1.0.1", "10.2.0.1", 40), udp4("10.1.0.1", "10.2.0.1", 40), ip4(6, "10.1.0.1", "10.2.0.1", 40), ip4(1, "10.1.0.1", "10.2.0.1", 40))
	if len(sealed) != 4 {
		t.Fatalf("%d packets sealed", len(sealed))
	}
	good, second, tcp, icmp := sealed[0], sealed[1], sealed[2], sealed[3]
	return map[packet.Drop][][]byte{
		packet.Truncated:     {good[:25]},
		packet.BadVersion:    {edit(good, 0, 0x55)},
		packet.BadLength:     {edit(good, 3, good[3]-1)},
		packet.NotESP:        {edit(good, 9, 51)},
		packet.Keepalive:     {datagram([]byte{0xff})},
		packet.NonESPMarker:  {datagram(make([]byte, 32))},
		packet.UnknownSPI:    {edit(good, 22, 0xee)},
		packet.EncapMismatch: {asUDP(good)},
		packet.Replayed:      {good, second, good},
		packet.BadICV:        {good, edit(second, -1, second[len(second)-1]^1)},
		packet.BadPadding:    {sealText(t, 1, []byte{0, 1, 2, 3, 4, 5, 7, 4})},
		packet.Dummy:         {sealText(t, 1, []byte{0, 1, 2, 3, 4, 5, 0, 59})},
		packet.BadInner:      {sealText(t, 1, []byte{0, 1, 2, 3, 4, 5, 0, 4})},
		packet.ECN:           {good, asCE(second)},
		packet.PolicyDiscard: {tcp},
		packet.PolicyClash:   {icmp},
	}
}

// outbound is the same for packets from the TUN.
func outbound() map[packet.Drop][][]byte {
	good := udp4("10.1.0.1", "10.2.0.1", 40)
	return map[packet.Drop][][]byte{
		packet.Truncated:     {good, good[:12]},
		packet.BadVersion:    {edit(good, 0, 0x95)},
		packet.BadLength:     {edit(good, 3, good[3]-1)},
		packet.PolicyDiscard: {good, udp4("10.1.3.1", "10.2.3.1", 40)},
		packet.NoSA:          {good, udp4("10.1.5.1", "10.2.5.1", 40)},
		packet.NotUnicast:    {good, udp4("10.9.9.9", "224.0.0.251", 40)},
		packet.TTLExceeded:   {good, edit(udp4("10.1.4.1", "10.2.4.1", 40), 8, 1)},
		packet.Options:       {udp4("10.1.7.1", "10.2.7.1", 40), routerAlert(udp4("10.1.6.1", "10.2.6.1", 40)), routerAlert(udp4("10.1.7.1", "10.2.7.1", 40))},
		packet.Fragment:      {good, edit(udp4("10.1.6.1", "10.2.6.1", 40), 6, 0x20)},
	}
}

// refuses is a wire, or a host, that takes nothing.
type refuses struct {
	link.MemoryOutside
	err error
}

func (r refuses) Writer() link.PacketWriter     { return r }
func (r refuses) Write(p [][]byte) (int, error) { return 0, r.err }

type refusesBurst struct{ link.MemoryInside }

func (r refusesBurst) Writer() link.BurstWriter  { return r }
func (r refusesBurst) Write(*packet.Burst) error { return os.ErrInvalid }

// withSA are the reasons that are counted under an SA, too.
var withSA = map[packet.Drop]bool{
	packet.Fragment: true, packet.Options: true, packet.NoLink: true, packet.TooBig: true, packet.SendFailed: true, packet.SeqExhausted: true,
	packet.EncapMismatch: true, packet.Replayed: true, packet.BadICV: true, packet.BadPadding: true, packet.Dummy: true,
	packet.BadInner: true, packet.ECN: true, packet.PolicyClash: true,
}

// countedBySAs adds up what all SAs dropped for a reason.
func countedBySAs(e *testEngine, d packet.Drop) (n uint64) {
	for sa := range e.SAD.All() {
		if c := sa.Drops(); c != nil {
			n += c.Get(d)
		}
	}
	return n
}

// TestDrops produces every reason there is.
func TestDrops(t *testing.T) {
	seen := map[packet.Drop]bool{packet.Kept: true}
	check := func(t *testing.T, e *testEngine, d packet.Drop, got, want int) {
		t.Helper()
		seen[d] = true
		if n := countedBySAs(e, d); d != packet.PolicyDiscard && n != 0 != withSA[d] {
			t.Errorf("%d counted under SAs", n)
		}
		if got != want {
			t.Errorf("%d packets came through, want %d", got, want)
		}
		for reason, n := range e.Drops.All() {
			if reason != d || n != 1 {
				t.Errorf("%d dropped as %v", n, reason)
			}
		}
		if e.Drops.Get(d) != 1 {
			t.Errorf("none dropped as %v", d)
		}
	}
	for d, pkts := range inbound(t) {
		t.Run("in/"+d.String(), func(t *testing.T) {
			e := newTestEngine(t)
			e.load(t, hostB)
			check(t, e, d, len(e.open(pkts...)), len(pkts)-1)
		})
	}
	for d, pkts := range outbound() {
		t.Run("out/"+d.String(), func(t *testing.T) {
			e := newTestEngine(t)
			e.Hop = true
			e.load(t, hostA)
			sealed, clear := e.send(pkts...)
			check(t, e, d, len(sealed)+len(clear), len(pkts)-1)
		})
	}
	good := udp4("10.1.0.1", "10.2.0.1", 40)
	t.Run("link/other port", func(t *testing.T) {
		e := newTestEngine(t)
		e.load(t, strings.ReplaceAll(hostA, "192.0.2.1[4500]", "192.0.2.1[4501]"))
		sealed, _ := e.send(udp4("10.1.2.1", "10.2.2.1", 40))
		check(t, e, packet.NoLink, len(sealed), 0)
	})
	for d, w := range map[packet.Drop]dataplane.Wires{
		packet.NoLink:     {},
		packet.TooBig:     {Raw4: refuses{err: link.ErrTooBig}},
		packet.SendFailed: {Raw4: refuses{err: errors.New("no")}},
	} {
		t.Run("link/"+d.String(), func(t *testing.T) {
			e := newTestEngine(t)
			e.load(t, hostA)
			host := link.NewMemory(1)
			host.Put(good)
			host.Close()
			if err := e.NewInside(link.MemoryInside{Memory: host}, w).Run(); err != nil {
				t.Error(err)
			}
			check(t, e, d, 0, 0)
		})
	}
	t.Run("link/"+packet.NotDelivered.String(), func(t *testing.T) {
		a, e := newTestEngine(t), newTestEngine(t)
		a.load(t, hostA)
		e.load(t, hostB)
		sealed, _ := a.send(good)
		wire := link.NewMemory(1)
		wire.Put(sealed[0])
		wire.Close()
		e.NewOutside(link.MemoryOutside{Memory: wire}, refusesBurst{link.MemoryInside{Memory: link.NewMemory(0)}}).Run()
		check(t, e, packet.NotDelivered, 0, 0)
	})
	t.Run("out/"+packet.SeqExhausted.String(), func(t *testing.T) {
		e := newTestEngine(t)
		e.load(t, hostA)
		exhaust(t, e, sad.ID{SPI: 0x1001, Proto: sad.ProtoESP, Dst: addr("192.0.2.2").Netip()})
		sealed, _ := e.send(good)
		check(t, e, packet.SeqExhausted, len(sealed), 0)
	})
	for d := packet.Kept; d < packet.NumDrops; d++ {
		if !seen[d] {
			t.Errorf("no test produces %v", d)
		}
	}
}

// A packet whose ICV is right moves the window, whatever is wrong behind that
// (RFC 4303 3.4.3): it is not opened again.
func TestBadPaddingOnce(t *testing.T) {
	e := newTestEngine(t)
	e.load(t, hostB)
	p := sealText(t, 1, []byte{0, 1, 2, 3, 4, 5, 7, 4})
	e.open(p, p)
	if bad, replayed := e.Drops.Get(packet.BadPadding), e.Drops.Get(packet.Replayed); bad != 1 || replayed != 1 {
		t.Errorf("%d dropped for padding, %d as replayed", bad, replayed)
	}
}

// exhaust uses up an SA's sequence numbers.
func exhaust(t *testing.T, e *testEngine, id sad.ID) {
	t.Helper()
	sa := e.SAD.Get(id)
	if sa == nil {
		t.Fatal("no SA")
	}
	for sa.Reserve(1<<30).N > 0 {
	}
}
