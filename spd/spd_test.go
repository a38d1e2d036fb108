package spd_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"ipsecd/packet"
	"ipsecd/spd"
)

// policy returns an outbound one; every argument after the prefixes may be the
// wildcard.
func policy(src, dst string, proto uint8, srcPort, dstPort uint16) *spd.Policy {
	return &spd.Policy{
		Dir:    spd.Out,
		Action: spd.IPsec,
		Sel: spd.Selector{
			Src: netip.MustParsePrefix(src), Dst: netip.MustParsePrefix(dst),
			Proto: proto, SrcPort: srcPort, DstPort: dstPort,
		},
	}
}

func flow(src, dst string, proto uint8, srcPort, dstPort uint16) packet.Flow {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	v := uint8(6)
	if s.Is4() {
		v = 4
	}
	return packet.Flow{
		Src: packet.AddrFrom(s), Dst: packet.AddrFrom(d),
		Proto: proto, SrcPort: srcPort, DstPort: dstPort, V: v,
	}
}

// commit adds the policies, with IDs from 1 in this order.
func commit(t testing.TB, db *spd.DB, policies ...*spd.Policy) {
	t.Helper()
	txn := db.Begin()
	for i, p := range policies {
		p.ID = uint32(i + 1)
		if err := txn.Add(p); err != nil {
			t.Fatalf("add %v: %v", p.Sel, err)
		}
	}
	if !txn.Commit() {
		t.Fatal("commit lost to nobody")
	}
}

func id(p *spd.Policy) uint32 {
	if p == nil {
		return 0
	}
	return p.ID
}

const tcp, udp, icmp, icmp6 = 6, 17, 1, 58

func TestLookup(t *testing.T) {
	urgent := policy("0.0.0.0/0", "10.9.0.0/16", spd.ProtoAny, 0, 0)
	urgent.Priority = 1
	later := policy("10.0.0.0/8", "10.9.9.9/32", tcp, 0, 443)
	later.Priority = 2
	clearPort := policy("192.0.2.0/24", "198.51.100.0/24", tcp, 0, 22)
	clearPort.Action = spd.None
	dropPort := policy("192.0.2.0/24", "198.51.100.0/24", tcp, 23, 0)
	dropPort.Action = spd.Discard
	clearAll := policy("192.0.2.0/24", "198.51.100.0/24", udp, 0, 0)
	clearAll.Action = spd.None

	tests := []struct {
		name     string
		policies []*spd.Policy
		flow     packet.Flow
		opaque   bool
		want     uint32 // place among policies, 0: none
	}{
		{"empty", nil, flow("10.0.0.1", "10.0.0.2", tcp, 1, 2), false, 0},
		{"insertion before specificity", []*spd.Policy{
			policy("10.0.0.0/8", "10.0.0.0/8", spd.ProtoAny, 0, 0),
			policy("10.0.0.1/32", "10.0.0.2/32", tcp, 1, 2),
		}, flow("10.0.0.1", "10.0.0.2", tcp, 1, 2), false, 1},
		{"priority before insertion", []*spd.Policy{later, urgent}, flow("10.1.1.1", "10.9.9.9", tcp, 1, 443), false, 2},
		{"source decides", []*spd.Policy{
			policy("10.1.0.0/16", "10.2.0.0/16", spd.ProtoAny, 0, 0),
			policy("10.0.0.0/8", "10.2.0.0/16", spd.ProtoAny, 0, 0),
		}, flow("10.3.0.1", "10.2.0.2", tcp, 1, 2), false, 2},
		{"source port", []*spd.Policy{
			policy("0.0.0.0/0", "0.0.0.0/0", udp, 54, 0),
			policy("0.0.0.0/0", "0.0.0.0/0", udp, 53, 0),
		}, flow("10.3.0.1", "10.2.0.2", udp, 53, 54), false, 2},
		{"ports of any protocol", []*spd.Policy{
			policy("0.0.0.0/0", "0.0.0.0/0", spd.ProtoAny, 0, 53),
		}, flow("10.3.0.1", "10.2.0.2", udp, 9, 53), false, 1},
		{"port 0 meets no port selector", []*spd.Policy{
			policy("0.0.0.0/0", "0.0.0.0/0", spd.ProtoAny, 0, 53),
		}, flow("10.3.0.1", "10.2.0.2", 50, 0, 0), false, 0},
		{"icmp type and code", []*spd.Policy{
			policy("0.0.0.0/0", "0.0.0.0/0", icmp, 3, 4),
			policy("0.0.0.0/0", "0.0.0.0/0", icmp, 8, 0),
		}, flow("10.3.0.1", "10.2.0.2", icmp, 8, 0), false, 2},
		{"icmp6 type", []*spd.Policy{
			policy("::/0", "::/0", icmp6, 135, 0),
		}, flow("fe80::1", "fe80::2", icmp6, 136, 0), false, 0},
		{"v4 default is not v6", []*spd.Policy{
			policy("0.0.0.0/0", "0.0.0.0/0", spd.ProtoAny, 0, 0),
		}, flow("2001:db8::1", "2001:db8::2", tcp, 1, 2), false, 0},
		{"v6 default is not v4", []*spd.Policy{
			policy("::/0", "::/0", spd.ProtoAny, 0, 0),
		}, flow("10.0.0.1", "10.0.0.2", tcp, 1, 2), false, 0},
		{"mapped prefix is v6", []*spd.Policy{
			policy("::ffff:0:0/96", "::ffff:0:0/96", spd.ProtoAny, 0, 0),
		}, flow("10.0.0.1", "10.0.0.2", tcp, 1, 2), false, 0},
		{"mapped prefix selects mapped v6", []*spd.Policy{
			policy("::ffff:0:0/96", "::ffff:0:0/96", spd.ProtoAny, 0, 0),
		}, flow("::ffff:10.0.0.1", "::ffff:10.0.0.2", tcp, 1, 2), false, 1},
		{"v6 host", []*spd.Policy{
			policy("2001:db8::/64", "2001:db8:1::2/128", spd.ProtoAny, 0, 0),
			policy("2001:db8::/64", "2001:db8:1::3/128", spd.ProtoAny, 0, 0),
		}, flow("2001:db8::7", "2001:db8:1::3", tcp, 1, 2), false, 2},
		{"fragment, ipsec with ports", []*spd.Policy{
			policy("192.0.2.0/24", "198.51.100.0/24", udp, 0, 0),
			policy("192.0.2.0/24", "198.51.100.0/24", tcp, 0, 22),
			policy("192.0.2.0/24", "198.51.100.0/24", tcp, 0, 0),
		}, flow("192.0.2.1", "198.51.100.1", tcp, 0, 0), true, 2},
		{"fragment, none and discard with ports", []*spd.Policy{
			clearPort, dropPort,
			policy("192.0.2.0/24", "198.51.100.0/24", spd.ProtoAny, 0, 0),
		}, flow("192.0.2.1", "198.51.100.1", tcp, 0, 0), true, 3},
		{"fragment, none without ports", []*spd.Policy{
			clearAll,
			policy("192.0.2.0/24", "198.51.100.0/24", udp, 7, 0),
		}, flow("192.0.2.1", "198.51.100.1", udp, 0, 0), true, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			db := spd.New()
			commit(t, db, tt.policies...)
			tt.flow.Opaque = tt.opaque
			if got := id(db.Lookup(spd.Out, &tt.flow)); got != tt.want {
				t.Errorf("policy %d, want %d", got, tt.want)
			}
			if p := db.Lookup(spd.In, &tt.flow); p != nil {
				t.Errorf("an outbound policy judged inbound: %v", p.Sel)
			}
		})
	}
}

func TestUnknownVersion(t *testing.T) {
	db := spd.New()
	commit(t, db, policy("0.0.0.0/0", "0.0.0.0/0", spd.ProtoAny, 0, 0), policy("::/0", "::/0", spd.ProtoAny, 0, 0))
	if p := db.Lookup(spd.Out, &packet.Flow{V: 5}); p != nil {
		t.Errorf("version 5 selected by %v", p.Sel)
	}
}

func TestAddErrors(t *testing.T) {
	db := spd.New()
	first := policy("10.0.0.0/8", "10.1.0.0/16", tcp, 0, 80)
	commit(t, db, first)

	noDir := policy("10.0.0.0/8", "10.1.0.0/16", udp, 0, 0)
	noDir.Dir = 3
	unmasked := policy("10.0.0.0/8", "10.1.0.0/16", udp, 0, 0)
	unmasked.Sel.Dst = netip.MustParsePrefix("10.1.0.1/16")
	noPrefix := policy("10.0.0.0/8", "10.1.0.0/16", udp, 0, 0)
	noPrefix.Sel.Src = netip.Prefix{}
	discard := policy("10.0.0.0/8", "10.1.0.0/16", tcp, 0, 80)
	discard.Action, discard.Priority = spd.Discard, 7

	tests := []struct {
		name string
		p    *spd.Policy
		want error
	}{
		{"equal selector", discard, spd.ErrExists},
		{"direction", noDir, spd.ErrInvalid},
		{"unmasked", unmasked, spd.ErrInvalid},
		{"no prefix", noPrefix, spd.ErrInvalid},
		{"families", policy("10.0.0.0/8", "2001:db8::/32", udp, 0, 0), spd.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := db.Begin().Add(tt.p); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestDelete(t *testing.T) {
	db := spd.New()
	a := policy("10.0.0.0/8", "10.1.0.0/16", tcp, 0, 80)
	b := policy("10.0.0.0/8", "10.1.0.0/16", tcp, 80, 0)
	commit(t, db, a, b)

	txn := db.Begin()
	if _, err := txn.Delete(a.Sel, spd.In); !errors.Is(err, spd.ErrNotFound) {
		t.Errorf("other direction: %v", err)
	}
	if _, err := txn.Delete(a.Sel, 3); !errors.Is(err, spd.ErrNotFound) {
		t.Errorf("no direction: %v", err)
	}
	if _, err := txn.Delete(spd.Selector{}, spd.Out); !errors.Is(err, spd.ErrNotFound) {
		t.Errorf("zero selector: %v", err)
	}
	if p, err := txn.Delete(a.Sel, spd.Out); p != a || err != nil {
		t.Errorf("got %v, %v", p, err)
	}
	if _, err := txn.Delete(a.Sel, spd.Out); !errors.Is(err, spd.ErrNotFound) {
		t.Errorf("twice: %v", err)
	}
	if got := slices.Collect(txn.All()); !slices.Equal(got, []*spd.Policy{b}) {
		t.Errorf("left: %v", got)
	}
	if !txn.Commit() || db.Len() != 1 {
		t.Errorf("%d policies after the commit, want 1", db.Len())
	}
}

// With the same priority a policy keeps the other's place, with another one it
// goes where Add puts it; where there is none, too.
func TestReplace(t *testing.T) {
	netA, netB, netC := "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"
	out := func(id uint32, dst string, priority uint32) *spd.Policy {
		p := policy("10.0.0.0/8", dst, spd.ProtoAny, 0, 0)
		p.ID, p.Priority = id, priority
		return p
	}
	in := out(9, netA, 0)
	in.Dir = spd.In
	unmasked := out(9, netA, 0)
	unmasked.Sel.Dst = netip.MustParsePrefix("10.1.0.1/16")
	tests := []struct {
		name string
		p    *spd.Policy
		old  uint32
		want []uint32
		err  error
	}{
		{"first", out(9, netA, 0), 1, []uint32{9, 2, 3}, nil},
		{"middle", out(9, netB, 0), 2, []uint32{1, 9, 3}, nil},
		{"later", out(9, netA, 1), 1, []uint32{2, 3, 9}, nil},
		{"new", out(9, "10.4.0.0/16", 0), 0, []uint32{1, 2, 3, 9}, nil},
		{"the other way", in, 0, []uint32{9, 1, 2, 3}, nil},
		{"unmasked", unmasked, 0, []uint32{1, 2, 3}, spd.ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			db := spd.New()
			commit(t, db, out(0, netA, 0), out(0, netB, 0), out(0, netC, 0))
			generation := db.Generation(tt.p.Dir)
			txn := db.Begin()
			old, err := txn.Replace(tt.p)
			if id(old) != tt.old || !errors.Is(err, tt.err) {
				t.Errorf("replaced %d, %v", id(old), err)
			}
			var got []uint32
			for p := range txn.All() {
				got = append(got, p.ID)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("order %d, want %d", got, tt.want)
			}
			if txn.Get(tt.old) != nil || db.Get(tt.old) != old || err == nil && txn.Get(9) != tt.p || db.Get(9) != nil {
				t.Error("an ID finds something else")
			}
			if !txn.Commit() || db.Len() != len(tt.want) || err == nil && (db.Get(9) != tt.p || db.Generation(tt.p.Dir) == generation) {
				t.Errorf("after the commit %d policies, generation %d", db.Len(), db.Generation(tt.p.Dir))
			}
		})
	}
}

// A policy that is deleted and added again goes to the end of its priority.
func TestDeleteAndAdd(t *testing.T) {
	db := spd.New()
	a := policy("10.0.0.0/8", "10.1.0.0/16", spd.ProtoAny, 0, 0)
	b := policy("10.0.0.0/8", "10.0.0.0/8", spd.ProtoAny, 0, 0)
	commit(t, db, a, b)
	txn := db.Begin()
	if _, err := txn.Delete(a.Sel, spd.Out); err != nil {
		t.Fatal(err)
	}
	again := policy("10.0.0.0/8", "10.1.0.0/16", spd.ProtoAny, 0, 0)
	if err := txn.Add(again); err != nil {
		t.Fatal(err)
	}
	f := flow("10.0.0.1", "10.1.0.1", tcp, 1, 2)
	if p := db.Lookup(spd.Out, &f); p != a {
		t.Errorf("before the commit: %v", p)
	}
	txn.Commit()
	if p := db.Lookup(spd.Out, &f); p != b {
		t.Errorf("after the commit: %v", p)
	}
}

// A policy whose transaction was given up finds its place in another one.
func TestAddAgain(t *testing.T) {
	db := spd.New()
	p := policy("10.0.0.0/8", "10.1.0.0/16", tcp, 0, 0)
	lost := db.Begin()
	for _, p := range []*spd.Policy{policy("10.0.0.0/8", "10.2.0.0/16", tcp, 0, 0), p} {
		if err := lost.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	before := []*spd.Policy{policy("10.0.0.0/8", "10.1.0.0/16", udp, 0, 0), policy("10.0.0.0/8", "10.1.0.0/16", spd.ProtoAny, 0, 0)}
	commit(t, db, before...)
	if lost.Commit() {
		t.Fatal("a stale transaction was committed")
	}
	txn := db.Begin()
	if err := txn.Add(p); err != nil {
		t.Fatal(err)
	}
	if !txn.Commit() {
		t.Fatal("commit lost to nobody")
	}
	if got, want := slices.Collect(db.All()), append(before, p); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	f := flow("10.0.0.1", "10.1.0.1", tcp, 1, 2)
	if got := db.Lookup(spd.Out, &f); got != before[1] {
		t.Errorf("got %v, the policy added first", got.Sel)
	}
	txn = db.Begin()
	if got, err := txn.Delete(p.Sel, spd.Out); got != p || err != nil {
		t.Errorf("deleted %v, %v", got, err)
	}
	if got := slices.Collect(txn.All()); !slices.Equal(got, before) {
		t.Errorf("left: %v", got)
	}
}

func TestCommit(t *testing.T) {
	db := spd.New()
	in := policy("10.0.0.0/8", "10.1.0.0/16", tcp, 0, 0)
	in.Dir = spd.In

	generations := func() [2]uint64 { return [2]uint64{db.Generation(spd.In), db.Generation(spd.Out)} }
	start := generations()

	winner, loser := db.Begin(), db.Begin()
	for _, txn := range []*spd.Txn{winner, loser} {
		if err := txn.Add(policy("10.0.0.0/8", "10.1.0.0/16", tcp, 0, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := loser.Add(in); err != nil {
		t.Fatal(err)
	}
	if db.Len() != 0 || generations() != start {
		t.Error("a change was seen before its commit")
	}
	if !winner.Commit() {
		t.Fatal("the first commit failed")
	}
	first := generations()
	if first[0] != start[0] || first[1] == start[1] {
		t.Errorf("generations %v after an outbound change of %v", first, start)
	}
	if loser.Commit() || db.Len() != 1 || generations() != first {
		t.Error("a stale transaction was committed")
	}
	if winner.Commit() {
		t.Error("a transaction was committed twice")
	}

	txn := db.Begin()
	if n := txn.Flush(); n != 1 {
		t.Errorf("%d flushed, want 1", n)
	}
	if !txn.Commit() || db.Len() != 0 {
		t.Error("flush had no effect")
	}
	if got := generations(); got[0] != first[0] || got[1] == first[1] {
		t.Errorf("generations %v after an outbound flush of %v", got, first)
	}
}

func TestLookupAllocates(t *testing.T) {
	db, flows := load(t, 1000)
	for i := range flows {
		flows[i].Opaque = i%2 == 0
	}
	i := 0
	allocs := testing.AllocsPerRun(len(flows), func() {
		db.Lookup(spd.Out, &flows[i%len(flows)])
		db.Generation(spd.Out)
		i++
	})
	if allocs != 0 {
		t.Errorf("%v allocations a lookup", allocs)
	}
}
