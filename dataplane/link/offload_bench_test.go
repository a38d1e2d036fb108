package link

import (
	"bytes"
	"testing"

	"ipsecd/packet"
)

// train is a frame of a TUN that is busy.
type train struct {
	name  string
	frame []byte
}

func trains(t fataler) (all []train) {
	for _, tt := range []struct {
		name string
		shape
	}{
		{"tso4", shape{df: true, flags: ack, options: timestamps}},
		{"tso6", shape{v6: true, flags: ack, options: timestamps}},
		{"uso4", shape{udp: true, df: true}},
		{"uso6", shape{v6: true, udp: true}},
	} {
		s := tt.shape
		s.ttl, s.port, s.payload = 64, 443, pattern(44*1350, 1)
		all = append(all, train{tt.name, s.offloaded(t, 1350)})
	}
	s := shape{udp: true, ttl: 64, port: 53, payload: pattern(60, 1)}
	return append(all, train{"lone", vnet{}.before(s.build(t))})
}

func BenchmarkFromVirtio(b *testing.B) {
	for _, tt := range trains(b) {
		b.Run(tt.name, func(b *testing.B) {
			var burst packet.Burst
			b.SetBytes(int64(len(tt.frame)))
			b.ReportAllocs()
			fromVirtio(&burst, tt.frame)
			for b.Loop() {
				fromVirtio(&burst, tt.frame)
			}
		})
	}
}

func BenchmarkPutVirtio(b *testing.B) {
	for _, tt := range trains(b) {
		b.Run(tt.name, func(b *testing.B) {
			var burst packet.Burst
			fromVirtio(&burst, bytes.Clone(tt.frame))
			burst.Classify()
			buf := make([]byte, virtioLen)
			b.ReportAllocs()
			for b.Loop() {
				putVirtio(buf, &burst)
			}
		})
	}
}

// BenchmarkReadSegments is the way of a frame to packets that only lack sealing.
func BenchmarkReadSegments(b *testing.B) {
	for _, tt := range trains(b) {
		b.Run(tt.name, func(b *testing.B) {
			var burst packet.Burst
			train := packet.NewTrain(1 << 17)
			b.SetBytes(int64(len(tt.frame)))
			b.ReportAllocs()
			fromVirtio(&burst, tt.frame)
			for b.Loop() {
				fromVirtio(&burst, tt.frame)
				burst.Classify()
				train.Reset()
				for k := range burst.Len() {
					burst.CopyPacket(train.Next(burst.PacketLen(k)), k)
				}
			}
		})
	}
}

// Taking frames apart and putting them together allocates nothing.
func TestOffloadFramesDoNotAllocate(t *testing.T) {
	var burst packet.Burst
	train, header := packet.NewTrain(1<<17), make([]byte, virtioLen)
	var h packet.Headers
	for _, tt := range trains(t) {
		join := packet.Coalescer{UDP: true}
		n := testing.AllocsPerRun(50, func() {
			fromVirtio(&burst, tt.frame)
			if d := burst.Classify(); d != packet.Kept {
				t.Fatal(d)
			}
			train.Reset()
			for k := range burst.Len() {
				p := train.Next(burst.PacketLen(k))
				burst.CopyPacket(p, k)
				h.Classify(p)
				if k == 0 || !join.Join(p, &h) {
					join.Start(p, &h)
				}
			}
			if b, ok := join.Burst(); ok {
				putVirtio(header, b)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", tt.name, n)
		}
	}
}
