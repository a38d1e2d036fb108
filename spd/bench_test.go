package spd_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"ipsecd/packet"
	"ipsecd/spd"
)

// load fills a database with n outbound policies, the same at each run: half
// between /24 networks, a quarter between hosts, a quarter with a port, and one
// in a hundred instead with short prefixes that overlap many others. The flows
// are 64 Ki, each aimed at a policy drawn at random.
func load(tb testing.TB, n int) (*spd.DB, []packet.Flow) {
	rnd := rand.New(rand.NewPCG(1, uint64(n)))
	db := spd.New()
	txn := db.Begin()
	policies := make([]*spd.Policy, 0, n)
	for len(policies) < n {
		p := randomPolicy(rnd, len(policies))
		p.ID = uint32(len(policies) + 1)
		if err := txn.Add(p); err == nil {
			policies = append(policies, p)
		}
	}
	if !txn.Commit() {
		tb.Fatal("commit lost to nobody")
	}
	flows := make([]packet.Flow, 1<<16)
	for i := range flows {
		flows[i] = flowOf(rnd, &policies[rnd.IntN(n)].Sel)
	}
	return db, flows
}

func randomPolicy(rnd *rand.Rand, i int) *spd.Policy {
	p := &spd.Policy{Dir: spd.Out, Action: spd.IPsec, Sel: spd.Selector{Proto: spd.ProtoAny}}
	bits := 24
	switch {
	case i%100 == 99:
		bits = 8 + rnd.IntN(9)
	case i%4 == 2:
		bits = 32
	case i%4 == 3:
		p.Sel.Proto, p.Sel.DstPort = tcp, uint16(1+rnd.IntN(1024))
	}
	p.Sel.Src, p.Sel.Dst = randomPrefix(rnd, bits), randomPrefix(rnd, bits)
	return p
}

func randomPrefix(rnd *rand.Rand, bits int) netip.Prefix {
	x := rnd.Uint32()
	a := netip.AddrFrom4([4]byte{10, byte(x >> 16), byte(x >> 8), byte(x)})
	return netip.PrefixFrom(a, bits).Masked()
}

func flowOf(rnd *rand.Rand, s *spd.Selector) packet.Flow {
	f := packet.Flow{Src: within(rnd, s.Src), Dst: within(rnd, s.Dst), Proto: s.Proto, V: 4}
	if f.Proto == spd.ProtoAny {
		f.Proto = tcp
	}
	f.SrcPort, f.DstPort = uint16(1024+rnd.IntN(60000)), s.DstPort
	if f.DstPort == 0 {
		f.DstPort = 443
	}
	return f
}

func within(rnd *rand.Rand, p netip.Prefix) packet.Addr {
	a := packet.AddrFrom(p.Addr())
	for i := p.Bits(); i < 32; i++ {
		if rnd.IntN(2) == 1 {
			a[12+i/8] |= 0x80 >> (i % 8)
		}
	}
	return a
}

var sizes = []int{10, 100, 1_000, 10_000, 100_000}

// BenchmarkLookup goes without a flow cache, each time to another flow.
func BenchmarkLookup(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			db, flows := load(b, n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if db.Lookup(spd.Out, &flows[i%len(flows)]) == nil {
					b.Fatal("no policy")
				}
			}
		})
	}
}

// BenchmarkDeleteAndAdd deletes one policy and adds it again, in one commit.
func BenchmarkDeleteAndAdd(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			db, _ := load(b, n)
			var sels []spd.Selector
			for p := range db.All() {
				sels = append(sels, p.Sel)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				txn := db.Begin()
				if _, err := txn.Delete(sels[i%n], spd.Out); err != nil {
					b.Fatal(err)
				}
				if err := txn.Add(&spd.Policy{Dir: spd.Out, Sel: sels[i%n]}); err != nil {
					b.Fatal(err)
				}
				txn.Commit()
			}
		})
	}
}
