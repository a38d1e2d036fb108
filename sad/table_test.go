package sad

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"ipsecd/crypto/alg"
)

// spec is an SA between two hosts of 192.0.2.0/24, told apart by their last
// octets; the key is of that SPI alone.
func spec(spi uint32, src, dst byte) Spec {
	key := make([]byte, 20)
	for i := range key {
		key[i] = byte(spi>>(8*(i%4))) + byte(i)
	}
	return Spec{
		ID:     ID{SPI: spi, Proto: ProtoESP, Dst: netip.AddrFrom4([4]byte{192, 0, 2, dst})},
		Src:    netip.AddrFrom4([4]byte{192, 0, 2, src}),
		Mode:   ModeTunnel,
		Replay: 32, Enc: alg.AESGCM16, EncKey: key,
	}
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

func newSA(t fataler, s Spec) *SA {
	t.Helper()
	sa, err := NewSA(s)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return sa
}

// list is the database as one would write it down: SAs in the order they came.
type list []*SA

func (l list) find(id ID) *SA {
	for _, sa := range l {
		if sa.spec.ID == id {
			return sa
		}
	}
	return nil
}

func (l list) outbound(mode Mode, reqid uint32, src, dst netip.Addr) *SA {
	for _, sa := range slices.Backward(l) {
		s := &sa.spec
		if s.Src == src && s.Dst == dst && (s.Mode == ModeAny || s.Mode == mode) && (reqid == 0 || reqid == s.Reqid) {
			return sa
		}
	}
	return nil
}

// pair is what there is from src to dst, newest first.
func (l list) pair(src, dst netip.Addr) (out list) {
	for _, sa := range slices.Backward(l) {
		if sa.spec.Src == src && sa.spec.Dst == dst {
			out = append(out, sa)
		}
	}
	return out
}

func (l list) without(sa *SA) list {
	return slices.DeleteFunc(slices.Clone(l), func(x *SA) bool { return x == sa })
}

// The database does under random operations what a list does.
func TestAgainstList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Both in the order they came; twin with those updated in their place, ages
		// with those that changed their source behind all others.
		db, twin, ages := New(), list(nil), list(nil)
		draw := func() Spec {
			s := spec(256+rapid.Uint32Range(0, 4).Draw(t, "spi"), rapid.ByteRange(1, 2).Draw(t, "src"), rapid.ByteRange(1, 5).Draw(t, "dst"))
			s.Mode = rapid.SampledFrom([]Mode{ModeAny, ModeTransport, ModeTunnel}).Draw(t, "mode")
			s.Reqid = rapid.Uint32Range(0, 2).Draw(t, "reqid")
			return s
		}
		check := func() {
			if got := slices.Collect(db.All()); !slices.Equal(got, twin) || db.Len() != len(twin) {
				t.Fatalf("%d SAs, want %d, or another order", len(got), len(twin))
			}
		}
		generation := db.Generation()
		changed := func(want bool) {
			if now := db.Generation(); (now != generation) != want {
				t.Fatalf("generation %d after %d", now, generation)
			}
			generation = db.Generation()
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"add": func(t *rapid.T) {
				s := draw()
				sa, have := newSA(t, s), twin.find(s.ID)
				err := db.Add(sa)
				if have != nil && err != ErrExists || have == nil && err != nil {
					t.Fatalf("add %v: %v", s.ID, err)
				}
				if have == nil {
					twin, ages = append(twin, sa), append(ages, sa)
				}
				changed(have == nil)
			},
			"replace": func(t *rapid.T) {
				sa := newSA(t, draw())
				old := twin.find(sa.spec.ID)
				db.Replace(sa)
				twin, ages = append(twin.without(old), sa), append(ages.without(old), sa)
				if old != nil && !old.Retired() || sa.Retired() {
					t.Fatalf("%v: the old one is in use, or the new one is not", sa.spec.ID)
				}
				changed(true)
			},
			"update": func(t *rapid.T) {
				sa := newSA(t, draw())
				old := twin.find(sa.spec.ID)
				if err := db.Update(sa); (old == nil) != (err == ErrNotFound) {
					t.Fatalf("update %v: %v", sa.spec.ID, err)
				}
				if old != nil && !old.Retired() || sa.Retired() {
					t.Fatalf("%v: the old one is in use, or the new one is not", sa.spec.ID)
				}
				changed(old != nil)
				if old == nil {
					return
				}
				twin[slices.Index(twin, old)] = sa
				if sa.Src == old.Src {
					ages[slices.Index(ages, old)] = sa
				} else {
					ages = append(ages.without(old), sa)
				}
			},
			"delete": func(t *rapid.T) {
				id := draw().ID
				want := twin.find(id)
				got, err := db.Delete(id)
				if got != want || (want == nil) != (err == ErrNotFound) {
					t.Fatalf("delete %v: %v, want %v", id, err, want)
				}
				twin, ages = twin.without(want), ages.without(want)
				changed(want != nil)
			},
			"flush": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "seldom") != 0 {
					t.Skip()
				}
				proto := rapid.SampledFrom([]uint8{0, ProtoESP, ProtoAH}).Draw(t, "proto")
				want := len(twin)
				if proto == ProtoAH {
					want = 0
				}
				if n := db.Flush(proto); n != want {
					t.Fatalf("flushed %d, want %d", n, want)
				}
				if proto != ProtoAH {
					twin, ages = nil, nil
				}
				changed(want > 0)
			},
			"lookup": func(t *rapid.T) {
				s := draw()
				dst := s.Dst.As16()
				want := twin.find(s.ID)
				if got := db.Lookup(s.SPI, s.Proto, &dst); got != want || db.Get(s.ID) != want {
					t.Fatalf("lookup %v: %v, want %v", s.ID, got, want)
				}
				if db.Lookup(s.SPI, ProtoAH, &dst) != nil {
					t.Fatal("found under another protocol")
				}
			},
			"outbound": func(t *rapid.T) {
				s := draw()
				src, dst := s.Src.As16(), s.Dst.As16()
				mode := rapid.SampledFrom([]Mode{ModeTransport, ModeTunnel}).Draw(t, "wanted")
				want := ages.outbound(mode, s.Reqid, s.Src, s.Dst)
				if got := db.Outbound(ProtoESP, mode, s.Reqid, &src, &dst); got != want {
					t.Fatalf("outbound: %v, want %v", got, want)
				}
			},
			"pair": func(t *rapid.T) {
				s := draw()
				if got, want := slices.Collect(db.Pair(ProtoESP, s.Src, s.Dst)), ages.pair(s.Src, s.Dst); !slices.Equal(got, want) {
					t.Fatalf("from %v to %v: %v, want %v", s.Src, s.Dst, got, want)
				}
				for sa := range db.Pair(ProtoAH, s.Src, s.Dst) {
					t.Fatalf("%v found under another protocol", sa.spec.ID)
				}
			},
		})
	})
}

// The table grows while it is filled and emptied, and not without end: deleted
// slots are used again or left behind.
func TestGrowthAndTombstones(t *testing.T) {
	db := New()
	const n = 5000
	var sas []*SA
	for i := range uint32(n) {
		sa := newSA(t, spec(1000+i, byte(i), byte(i>>8)))
		if err := db.Add(sa); err != nil {
			t.Fatal(err)
		}
		sas = append(sas, sa)
	}
	all := func(want bool) {
		t.Helper()
		for _, sa := range sas {
			if (db.Get(sa.spec.ID) == sa) != want {
				t.Fatalf("SPI %d: found is not %v", sa.spec.SPI, want)
			}
		}
	}
	all(true)
	for _, sa := range sas[1:] {
		if _, err := db.Delete(sa.spec.ID); err != nil {
			t.Fatal(err)
		}
	}
	if db.Get(sas[0].spec.ID) != sas[0] || db.Len() != 1 {
		t.Fatal("the one that is left is lost")
	}
	sas = sas[1:]
	all(false)
	for i := range uint32(20 * n) { // one comes, one goes
		sa := newSA(t, spec(100000+i, 1, 2))
		if err := db.Add(sa); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Delete(sa.spec.ID); err != nil {
			t.Fatal(err)
		}
	}
	for name, tb := range map[string][3]int{
		"SPIs":  {len(db.bySPI.Load().slots), db.bySPI.Load().live, db.bySPI.Load().used},
		"pairs": {len(db.pairs.Load().slots), db.pairs.Load().live, db.pairs.Load().used},
	} {
		if slots, live, used := tb[0], tb[1], tb[2]; live != 1 || used > slots/8*7 || slots > 16384 {
			t.Errorf("%s: %d slots, %d live, %d used", name, slots, live, used)
		}
	}
}

// Values whose tags are the same, and wrap round the end of the table, are all
// found.
func TestTableCollisions(t *testing.T) {
	tb := newTable[int](16)
	var values [10]int
	const tag = 15 // the last slot
	for i := range values {
		tb.insert(tag, &values[i])
	}
	found := func() (out []*int) {
		for v, i := tb.find(tag, tag); v != nil; v, i = tb.find(tag, i) {
			out = append(out, v)
		}
		return out
	}
	if got := found(); len(got) != 10 || got[0] != &values[0] || got[9] != &values[9] {
		t.Fatalf("found %d", len(got))
	}
	tb.remove(tag, &values[0])
	tb.remove(tag, &values[5])
	if got := found(); len(got) != 8 || got[0] != &values[1] {
		t.Fatalf("found %d after removal", len(got))
	}
	tb.insert(tag, &values[5])
	if got := found(); len(got) != 9 || got[0] != &values[5] || tb.used != 10 || tb.live != 9 {
		t.Fatalf("found %d, the grave is not used again: %d used", len(got), tb.used)
	}
	if v, _ := tb.find(tag+1, tag+1); v != nil {
		t.Error("another tag's value")
	}
	for h, want := range map[uint64]uint64{0: 2, 1: 3, 2: 2, 1 << 60: 1 << 60} {
		if tagOf(h) != want {
			t.Errorf("tag of %d is %d", h, tagOf(h))
		}
	}
}

// What is flushed leaves no tombstones to probe past.
func TestFlushLeavesSmallTables(t *testing.T) {
	db := New()
	for i := range uint32(1000) {
		added(t, db, coldSpec(i))
	}
	db.Flush(ProtoAH)
	if n := db.Flush(ProtoESP); n != 1000 || len(db.bySPI.Load().slots) != minSlots || len(db.pairs.Load().slots) != minSlots {
		t.Errorf("%d flushed, %d and %d slots left", n, len(db.bySPI.Load().slots), len(db.pairs.Load().slots))
	}
}
