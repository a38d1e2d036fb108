package sad

import (
	"fmt"
	"testing"
)

// filled is a database of n SAs to as many peers.
func filled(b *testing.B, n int) *DB {
	b.Helper()
	db := New()
	for i := range uint32(n) {
		if err := db.Add(newSA(b, coldSpec(i))); err != nil {
			b.Fatal(err)
		}
	}
	return db
}

// sizes are of databases: what is measured is to be the same in both, but for
// the caches of the processor.
var sizes = []int{1000, 1000000}

func BenchmarkLookup(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			db := filled(b, n)
			dst := coldSpec(0).Dst.As16()
			b.ReportAllocs()
			for i := uint32(0); b.Loop(); i = (i + 7919) % uint32(n) {
				dst[13], dst[14], dst[15] = byte(i>>16), byte(i>>8), byte(i)
				if db.Lookup(0x1000, ProtoESP, &dst) == nil {
					b.Fatal("lost")
				}
			}
		})
	}
}

func BenchmarkOutbound(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			db := filled(b, n)
			src, dst := coldSpec(0).Src.As16(), coldSpec(0).Dst.As16()
			b.ReportAllocs()
			for i := uint32(0); b.Loop(); i = (i + 7919) % uint32(n) {
				dst[13], dst[14], dst[15] = byte(i>>16), byte(i>>8), byte(i)
				if db.Outbound(ProtoESP, ModeTunnel, 0, &src, &dst) == nil {
					b.Fatal("lost")
				}
			}
		})
	}
}

// One more SA and its end, NewSA included.
func BenchmarkAddAndDelete(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			db := filled(b, n)
			for i := uint32(n); b.Loop(); i++ {
				sa := newSA(b, coldSpec(i))
				if err := db.Add(sa); err != nil {
					b.Fatal(err)
				}
				if _, err := db.Delete(sa.spec.ID); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The same between two hosts that have all the other SAs as well.
func BenchmarkAddAndDeleteInPair(b *testing.B) {
	for _, n := range []int{10, 100000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			db := New()
			for i := range uint32(n) {
				added(b, db, spec(256+i, 1, 2))
			}
			for i := uint32(n); b.Loop(); i++ {
				added(b, db, spec(256+i, 1, 2))
				if _, err := db.Delete(spec(256+i-uint32(n), 1, 2).ID); err != nil { // the oldest
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReserveAndCount(b *testing.B) {
	s := spec(256, 1, 2)
	s.ESN = true // 2^32 numbers are soon gone
	sa := newSA(b, s)
	if err := New().Add(sa); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if sa.Reserve(44).N == 0 {
			b.Fatal("used up")
		}
		sa.Count(44, 66000, 1000)
	}
}

func BenchmarkSequence(b *testing.B) {
	sa := esn(b, 64, 0, 1<<32)
	b.ReportAllocs()
	for lo := uint32(1); b.Loop(); lo++ {
		if seq := sa.Sequence(lo); uint32(seq) != lo {
			b.Fatal("another low half")
		}
	}
}

func BenchmarkEnterAndLeave(b *testing.B) {
	db := New()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r := db.NewReader()
		defer r.Close()
		for pb.Next() {
			r.Enter()
			r.Leave()
		}
	})
}
