package bench

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"os"
	"testing"
	"time"

	"ipsecd/control"
	"ipsecd/dataplane"
	"ipsecd/dataplane/link"
	"ipsecd/packet"
	"ipsecd/sad"
	"ipsecd/spd"
)

const (
	segments = 44 // of 1400 octets fill one read of the TUN
	script   = `
add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -r 0 -E aes-gcm-16 0x6b87c452e0602b13e1925c2962e635ad7b9d3f7b;
spdadd 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;
spdadd 10.1.0.0/24 10.2.0.0/24 any -P in ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;`
)

// source yields one burst n times, then ends. It is the host's side, and takes
// bursts as well.
type source struct {
	link.Inside
	burst packet.Burst
	n     int
}

func (s *source) Read(b *packet.Burst) error {
	if s.n == 0 {
		return os.ErrClosed
	}
	s.n--
	*b = s.burst
	return nil
}

func (s *source) Writer() link.BurstWriter    { return s }
func (s *source) Write(b *packet.Burst) error { return nil }

// wire keeps the first train that is written to it, and yields copies of that,
// n of them.
type wire struct {
	link.Outside
	kept [][]byte
	bufs [][]byte
	n    int
}

func (w *wire) Writer() link.PacketWriter { return w }
func (w *wire) Write(pkts [][]byte) (int, error) {
	if w.kept == nil {
		for _, p := range pkts {
			w.kept = append(w.kept, append([]byte(nil), p...))
			w.bufs = append(w.bufs, make([]byte, len(p)))
		}
	}
	return len(pkts), nil
}

func (w *wire) Read(bs []packet.Burst) (int, error) {
	if w.n == 0 {
		return 0, os.ErrClosed
	}
	w.n--
	n := min(len(bs), len(w.kept))
	for i := range n {
		copy(w.bufs[i], w.kept[i])
		bs[i].Seg, bs[i].Head = packet.Lone, w.bufs[i]
	}
	return n, nil
}

// tcpBurst is what the TUN hands over of a TCP stream: one header, segments of
// size octets, a partial checksum.
func tcpBurst(size int) packet.Burst {
	head := make([]byte, packet.IPv4HeaderLen+packet.TCPHeaderLen)
	ip := packet.IPv4{TTL: 64, Proto: packet.ProtoTCP, DF: true,
		Src: packet.AddrFrom4([]byte{10, 1, 0, 1}), Dst: packet.AddrFrom4([]byte{10, 2, 0, 1})}
	ip.Put(head, len(head)+segments*size)
	tcp := head[packet.IPv4HeaderLen:]
	binary.BigEndian.PutUint16(tcp, 1000)
	binary.BigEndian.PutUint16(tcp[2:], 2000)
	tcp[12], tcp[13] = 5<<4, 0x10
	b := packet.Burst{Seg: packet.TCP, Head: head, Partial: true, CsumStart: packet.IPv4HeaderLen, CsumOff: 16}
	if !b.Split(make([]byte, segments*size), size) {
		panic("too many segments")
	}
	return b
}

func newEngine(b *testing.B) *dataplane.Engine {
	e := dataplane.New(dataplane.Config{SAD: sad.New(), SPD: spd.New(), Now: func() int64 { return 1 }})
	if err := control.New(control.Config{SAD: e.SAD, SPD: e.SPD}).Load("bench", []byte(script)); err != nil {
		b.Fatal(err)
	}
	return e
}

// aead seals and opens what the engine would: the inner packets with their
// trailers, nothing else. It returns the time that a segment takes.
func aead(size, rounds int) (seal, open time.Duration) {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	n := (packet.IPv4HeaderLen + packet.TCPHeaderLen + size + 2 + 3) / 4 * 4
	buf, nonce, aad := make([]byte, n, n+16), make([]byte, 12), make([]byte, 8)
	start := time.Now()
	for range rounds * segments {
		gcm.Seal(buf[:0], nonce, buf[:n], aad)
	}
	seal = time.Since(start) / time.Duration(rounds*segments)
	sealed := gcm.Seal(nil, nonce, buf[:n], aad)
	work := make([]byte, len(sealed))
	start = time.Now()
	for range rounds * segments {
		copy(work, sealed)
		gcm.Open(work[:0], nonce, work, aad)
	}
	return seal, time.Since(start) / time.Duration(rounds*segments)
}

// BenchmarkEngine runs bursts through both directions of the engine, in memory.
// The metric share is the standard library's AEAD on the same octets, measured
// in the same run, over the engine's time.
func BenchmarkEngine(b *testing.B) {
	for _, size := range []int{64, 1360} {
		b.Run(fmt.Sprintf("seal/%d", size), func(b *testing.B) {
			e := newEngine(b)
			from, to := &source{burst: tcpBurst(size), n: b.N}, &wire{}
			in := e.NewInside(from, dataplane.Wires{Raw4: to})
			ref, _ := aead(size, b.N)
			b.ReportAllocs()
			b.ResetTimer()
			in.Run()
			report(b, ref, size)
		})
		b.Run(fmt.Sprintf("open/%d", size), func(b *testing.B) {
			e := newEngine(b)
			from, to := &source{burst: tcpBurst(size), n: 1}, &wire{}
			e.NewInside(from, dataplane.Wires{Raw4: to}).Run()
			to.n = b.N * segments / min(segments, link.ReadBatch)
			out := e.NewOutside(to, from)
			_, ref := aead(size, b.N)
			b.ReportAllocs()
			b.ResetTimer()
			out.Run()
			report(b, ref, size)
			for reason, n := range e.Drops.All() {
				b.Errorf("%d dropped as %v", n, reason)
			}
		})
	}
}

func report(b *testing.B, ref time.Duration, size int) {
	per := b.Elapsed() / time.Duration(b.N*segments)
	b.ReportMetric(float64(per.Nanoseconds()), "ns/segment")
	b.ReportMetric(float64(ref)/float64(per), "share")
	b.SetBytes(int64(segments * size))
}
