package sad

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
)

// While one goroutine replaces an SA, others reserve under whatever SA they
// find: no sequence number and no IV is granted twice, and there is always one
// to be found.
func TestReplaceUnderReserve(t *testing.T) {
	db := New()
	id := ID{SPI: 0x1000, Proto: ProtoESP, Dst: netip.MustParseAddr("192.0.2.2")}
	src := netip.MustParseAddr("192.0.2.1")
	a, b := src.As16(), id.Dst.As16()
	fresh := func() *SA {
		sa, err := NewSA(Spec{ID: id, Src: src, Mode: ModeTunnel, Enc: 20, EncKey: make([]byte, 20)})
		if err != nil {
			t.Fatal(err)
		}
		return sa
	}
	db.Replace(fresh())
	const workers, bursts = 3, 3000
	grants := make([][]Grant, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for len(grants[i]) < bursts {
				sa := db.Outbound(ProtoESP, ModeTunnel, 0, &a, &b)
				if sa == nil {
					t.Error("no SA for a moment")
					return
				}
				if g := sa.Reserve(7); g.N > 0 {
					grants[i] = append(grants[i], g)
				} else if !sa.Retired() {
					t.Error("an SA in use grants nothing")
					return
				}
			}
		})
	}
	for range 500 {
		db.Replace(fresh())
	}
	wg.Wait()
	seqs, ivs := map[uint64]bool{}, map[uint64]bool{}
	for _, list := range grants {
		for _, g := range list {
			for i := range uint64(g.N) {
				if seqs[g.Seq+i] || ivs[g.IV+i] {
					t.Fatalf("granted twice: seq %d, IV %#x", g.Seq+i, g.IV+i)
				}
				seqs[g.Seq+i], ivs[g.IV+i] = true, true
			}
		}
	}
	if db.Len() != 1 || len(seqs) != workers*bursts*7 {
		t.Errorf("%d SAs, %d numbers", db.Len(), len(seqs))
	}
}

// While SAs of one pair are replaced, one of each reqid and SPI is to be found all
// the time, and none that was not asked for.
func TestReplaceWithinPair(t *testing.T) {
	db := New()
	fresh := func(i uint32) *SA {
		s := spec(256+i, 1, 2)
		s.Reqid = 1 + i
		return newSA(t, s)
	}
	const n = 5
	for i := range uint32(n) {
		db.Replace(fresh(i))
	}
	src, dst := fresh(0).Src, fresh(0).Dst
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for i := uint32(0); !stop.Load(); i = (i + 1) % n {
				if sa := db.Outbound(ProtoESP, ModeTunnel, 1+i, &src, &dst); sa == nil || sa.spec.Reqid != 1+i {
					t.Errorf("reqid %d: %v", 1+i, sa)
					return
				}
				if sa := db.Lookup(256+i, ProtoESP, &dst); sa == nil || sa.spec.SPI != 256+i {
					t.Errorf("SPI %d: %v", 256+i, sa)
					return
				}
			}
		})
	}
	for range 20000 {
		db.Replace(fresh(rand.Uint32N(n)))
	}
	stop.Store(true)
	wg.Wait()
}
