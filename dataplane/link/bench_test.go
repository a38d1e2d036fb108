package link

import (
	"testing"

	"ipsecd/packet"
)

// benchSize is the packets' length, benchTrain how many of them go at once.
const (
	benchSize  = 1400
	benchTrain = 32
)

// send and read the same packets by way of the loopback device, or of a wire.
func benchmarkWire(b *testing.B, out, in Outside, pkts [][]byte) {
	w, bs := out.Writer(), make([]packet.Burst, ReadBatch)
	b.SetBytes(int64(len(pkts) * len(pkts[0])))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Write(pkts); err != nil {
			b.Fatal(err)
		}
		for got := 0; got < len(pkts); {
			n, err := in.Read(bs)
			if err != nil {
				b.Fatal(err)
			}
			for i := range bs[:n] {
				got += bs[i].Len()
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(pkts)), "ns/packet")
}

func BenchmarkRaw(b *testing.B) {
	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		b.Run(name, func(b *testing.B) {
			from, to := wired(b)
			var pkts [][]byte
			for i := range benchTrain {
				pkts = append(pkts, espPacket(from, to, v6, benchSize, byte(i)))
			}
			benchmarkWire(b, from.raw(v6), to.raw(v6), pkts)
		})
	}
}

func BenchmarkUDP(b *testing.B) {
	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		b.Run(name, func(b *testing.B) {
			from, to := wired(b)
			var pkts [][]byte
			for i := range benchTrain {
				pkts = append(pkts, datagram(from.addr(v6), to.addr(v6), v6, 0, natT, pattern(benchSize, byte(i))))
			}
			benchmarkWire(b, from.udp(v6, natT), to.udp(v6, natT), pkts)
		})
	}
}

// BenchmarkTUN writes an echo request and reads the kernel's answer.
func BenchmarkTUN(b *testing.B) {
	h := newTUNHost(b, "host", 1)
	in, out, w := new(packet.Burst), &packet.Burst{Head: echoRequest(h)}, h.tun.Writer()
	b.SetBytes(int64(len(out.Head)))
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Write(out); err != nil {
			b.Fatal(err)
		}
		if err := h.tun.Read(in); err != nil {
			b.Fatal(err)
		}
	}
}
