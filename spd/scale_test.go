package spd_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"ipsecd/packet"
	"ipsecd/spd"
	"ipsecd/spd/internal/golden"
)

// dense draws selectors and flows from so small a space that 10,000 policies
// nest and overlap, and most flows meet several.
type dense struct{ *rand.Rand }

func (d dense) addr(v4 bool) netip.Addr {
	if v4 {
		return netip.AddrFrom4([4]byte{10, byte(d.IntN(256)), byte(d.IntN(4)) << 6, byte(d.IntN(4))})
	}
	return netip.AddrFrom16([16]byte{0: 0x20, 1: byte(d.IntN(256)), 7: byte(d.IntN(4)) << 6, 8: byte(d.IntN(4)) << 6, 15: byte(d.IntN(4))})
}

func (d dense) prefix(v4 bool) netip.Prefix {
	a := d.addr(v4)
	return netip.PrefixFrom(a, d.IntN(a.BitLen()+1)).Masked()
}

func (d dense) port() uint16 { return []uint16{0, 0, 0, 1, 2, 443, 0x8000}[d.IntN(7)] }

func (d dense) policy(id uint32) *spd.Policy {
	v4 := d.IntN(2) == 0
	return &spd.Policy{
		ID: id, Dir: []spd.Dir{spd.In, spd.Out}[d.IntN(2)], Action: spd.Action(d.IntN(3)), Priority: uint32(d.IntN(50)),
		Sel: spd.Selector{Src: d.prefix(v4), Dst: d.prefix(v4), SrcPort: d.port(), DstPort: d.port(),
			Proto: []uint8{spd.ProtoAny, tcp, udp, 0}[d.IntN(4)]},
	}
}

func (d dense) flow() packet.Flow {
	v4 := d.IntN(2) == 0
	f := packet.Flow{Src: packet.AddrFrom(d.addr(v4)), Dst: packet.AddrFrom(d.addr(v4)), V: 6,
		Proto: []uint8{tcp, udp, 0, 60}[d.IntN(4)], Opaque: d.IntN(8) == 0}
	if v4 {
		f.V = 4
	}
	if !f.Opaque {
		f.SrcPort, f.DstPort = d.port(), d.port()
	}
	return f
}

// The database answers like the list with 10,000 policies, after random deletes,
// and after as many were added again.
func TestTenThousand(t *testing.T) {
	const policies, flows = 10_000, 2000
	d := dense{rand.New(rand.NewPCG(10, 4))}
	db, list := spd.New(), new(golden.List)
	id := uint32(0)
	fill := func() {
		txn := db.Begin()
		for n := len(list.All()); n < policies; {
			id++
			p := d.policy(id)
			if got, want := txn.Add(p), list.Add(p); got != want {
				t.Fatalf("add %+v: %v, want %v", p.Sel, got, want)
			} else if got == nil {
				n++
			}
		}
		if !txn.Commit() {
			t.Fatal("not committed")
		}
	}
	check := func() {
		t.Helper()
		if got, want := slices.Collect(db.All()), list.All(); !slices.Equal(got, want) {
			t.Fatalf("%d policies, want %d, or in another order", len(got), len(want))
		}
		found := 0
		for range flows {
			f, dir := d.flow(), []spd.Dir{spd.In, spd.Out}[d.IntN(2)]
			got, want := db.Lookup(dir, &f), list.Lookup(dir, &f)
			if got != want {
				t.Fatalf("direction %d, flow %+v:\ngot  %s\nwant %s", dir, f, describe(got), describe(want))
			}
			if got != nil {
				found++
			}
		}
		if found < flows/2 {
			t.Fatalf("only %d of %d flows met a policy", found, flows)
		}
	}
	fill()
	check()
	for range 2 {
		txn := db.Begin()
		for _, p := range list.All() {
			if d.IntN(2) == 0 {
				_, err := txn.Delete(p.Sel, p.Dir)
				if _, wantErr := list.Delete(p.Sel, p.Dir); err != nil || wantErr != nil {
					t.Fatal(err, wantErr)
				}
			}
		}
		if !txn.Commit() {
			t.Fatal("not committed")
		}
		check()
		fill()
		check()
	}
}
