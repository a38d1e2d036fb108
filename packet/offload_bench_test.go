package packet

import (
	"fmt"
	"testing"

	"github.com/gopacket/gopacket/layers"
)

var benchTimestamps = []layers.TCPOption{{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop},
	{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte("abcdefgh")}}

// streams are what most of the packets of a host look like.
var streams = []struct {
	name string
	segment
}{
	{"tcp4", segment{ttl: 64, df: true, port: 443, flags: tcpACK, window: 500, options: benchTimestamps}},
	{"tcp6", segment{v6: true, ttl: 64, port: 443, flags: tcpACK, window: 500, options: benchTimestamps}},
	{"udp4", segment{udp: true, ttl: 64, df: true, port: 443}},
	{"udp6", segment{v6: true, udp: true, ttl: 64, port: 443}},
}

const mss = 1400

// arrivals are packets that follow each other, with their headers.
func arrivals(t testing.TB, s segment, n int) (pkts [][]byte, hs []Headers) {
	t.Helper()
	s.payload = pattern(mss)
	for range n {
		p := s.build(t)
		pkts, hs = append(pkts, p), append(hs, *classified(t, p))
		s.seq += mss
		s.id++
	}
	return pkts, hs
}

func BenchmarkClassify(b *testing.B) {
	for _, s := range streams {
		b.Run(s.name, func(b *testing.B) {
			pkts, _ := arrivals(b, s.segment, 1)
			one := Burst{Head: pkts[0]}
			b.SetBytes(int64(len(pkts[0])))
			b.ReportAllocs()
			for b.Loop() {
				one.Classify()
			}
		})
	}
}

// BenchmarkCopyPacket is one segment of a train of 44.
func BenchmarkCopyPacket(b *testing.B) {
	for _, s := range streams {
		b.Run(s.name, func(b *testing.B) {
			s.payload = pattern(44 * mss)
			burst := offloaded(b, s.segment, mss)
			dst := make([]byte, burst.PacketLen(0))
			b.SetBytes(int64(len(dst)))
			b.ReportAllocs()
			for b.Loop() {
				burst.CopyPacket(dst, 7)
			}
		})
	}
}

// BenchmarkJoin is a train of k packets, joined and finished, by the octets of
// all.
func BenchmarkJoin(b *testing.B) {
	for _, s := range streams {
		for _, k := range []int{1, 2, 44} {
			b.Run(fmt.Sprintf("%s/%d", s.name, k), func(b *testing.B) {
				pkts, hs := arrivals(b, s.segment, k)
				head := append([]byte(nil), pkts[0]...)
				c := Coalescer{UDP: true}
				b.SetBytes(int64(k * len(head)))
				b.ReportAllocs()
				for b.Loop() {
					copy(pkts[0], head[:100])
					c.Start(pkts[0], &hs[0])
					for i := 1; i < k; i++ {
						if !c.Join(pkts[i], &hs[i]) {
							b.Fatal("does not join")
						}
					}
					c.Burst()
				}
			})
		}
	}
}

func BenchmarkSplit(b *testing.B) {
	payload := pattern(44 * mss)
	var burst Burst
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	burst.Split(payload, mss)
	for b.Loop() {
		burst.Split(payload, mss)
	}
}

func BenchmarkFlowHash(b *testing.B) {
	_, hs := arrivals(b, streams[0].segment, 1)
	b.ReportAllocs()
	for b.Loop() {
		hs[0].Hash(3)
	}
}

// Every stage allocates nothing, for each kind of stream, whether packets join
// or not.
func TestOffloadStagesDoNotAllocate(t *testing.T) {
	for _, s := range streams {
		pkts, hs := arrivals(t, s.segment, 44)
		s.payload = pattern(44 * mss)
		burst, c, train := offloaded(t, s.segment, mss), Coalescer{UDP: true}, NewTrain(1<<17)
		var lone Burst
		for name, stage := range map[string]func(){
			"Classify":        func() { lone.Head = pkts[3]; lone.Classify() },
			"Classify, burst": func() { burst.Classify() },
			"IPLength":        func() { IPLength(pkts[3]) },
			"SetTOS":          func() { SetTOS(pkts[1], 3); SetTOS(pkts[1], 0) },
			"DecrementTTL":    func() { DecrementTTL(pkts[2]) },
			"Octets":          func() { burst.Octets() },
			"Train and CopyPacket": func() {
				train.Reset()
				for k := range burst.Len() {
					burst.CopyPacket(train.Next(burst.PacketLen(k)), k)
				}
			},
			"Join": func() {
				c.Start(pkts[3], &hs[3])
				for i := 4; i < len(pkts); i++ {
					c.Join(pkts[i], &hs[i])
				}
				c.Burst()
			},
			"Join in the wrong order": func() {
				c.Start(pkts[5], &hs[5])
				c.Join(pkts[4], &hs[4])
				c.Burst()
			},
		} {
			if n := testing.AllocsPerRun(50, stage); n != 0 {
				t.Errorf("%s: %s allocates %v times", s.name, name, n)
			}
		}
	}
}
