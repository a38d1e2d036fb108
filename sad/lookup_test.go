package sad

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"ipsecd/packet"
)

// A tag is a hash: what is found under it is what was asked for, or is passed
// over.
func TestLookupChecksWhatItFinds(t *testing.T) {
	db := New()
	wanted := spec(256, 1, 2)
	tag := db.tag(newSA(t, wanted))
	for _, s := range []Spec{spec(257, 1, 2), spec(256, 1, 3)} {
		insert(&db.bySPI, tag, newSA(t, s))
	}
	dst, src := wanted.Dst.As16(), wanted.Src.As16()
	if got := db.Lookup(256, ProtoESP, &dst); got != nil {
		t.Errorf("found %v", got.spec.ID)
	}
	pairTag := db.pairTag(ProtoESP, &src, &dst)
	for _, s := range []Spec{spec(256, 1, 3), spec(256, 3, 2)} {
		insert(&db.pairs, pairTag, newSA(t, s))
	}
	if got := db.Outbound(ProtoESP, ModeTunnel, 0, &src, &dst); got != nil {
		t.Errorf("to go out by %v", got.spec.ID)
	}
	sa := added(t, db, wanted)
	if db.Get(wanted.ID) != sa || db.Outbound(ProtoESP, ModeTunnel, 0, &src, &dst) != sa {
		t.Error("not found behind others of the same hash")
	}
}

// The database hands out what is there, however it is written to, and never
// another SA than was asked for. Run with -race.
func TestLookupsDuringWrites(t *testing.T) {
	db := New()
	stays := newSA(t, spec(256, 1, 2))
	if err := db.Add(stays); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	errs := make(chan error, 4)
	for i := range 4 {
		go func() {
			errs <- func() error {
				other := stays.Dst
				for spi := uint32(1000); ; spi++ {
					select {
					case <-stop:
						return nil
					default:
					}
					spi = 1000 + spi%300
					if got := db.Lookup(256, ProtoESP, &stays.Dst); got != stays {
						return fmt.Errorf("lost the SA that stays: %v", got)
					}
					if got := db.Lookup(spi, ProtoESP, &other); got != nil && (got.spec.SPI != spi || got.Dst != other) {
						return fmt.Errorf("asked for %d, got %d", spi, got.spec.SPI)
					}
					got := db.Outbound(ProtoESP, ModeTunnel, 0, &stays.Src, &stays.Dst)
					if got == nil || got.Src != stays.Src || got.Dst != stays.Dst {
						return fmt.Errorf("reader %d: outbound %v", i, got)
					}
					got.Reserve(1)
					got.Count(1, 100, 5)
					got.Usage()
					db.Generation()
				}
			}()
		}()
	}
	for round := range 20 {
		for i := range uint32(300) {
			if err := db.Add(newSA(t, spec(1000+i, 1+byte(i%2), 2))); err != nil {
				t.Error(err)
			}
		}
		for i := range uint32(300) {
			if _, err := db.Delete(spec(1000+(i+uint32(round)*7)%300, 1, 2).ID); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	for range 4 {
		select {
		case err := <-errs:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("a reader does not end")
		}
	}
}

// An IPv4 address and its mapped form are one destination.
func TestMappedAddresses(t *testing.T) {
	db := New()
	s := spec(256, 1, 2)
	s.Dst, s.Src = netip.AddrFrom16(s.Dst.As16()), netip.AddrFrom16(s.Src.As16())
	sa := newSA(t, s)
	if err := db.Add(sa); err != nil {
		t.Fatal(err)
	}
	if err := db.Add(newSA(t, spec(256, 1, 2))); err != ErrExists {
		t.Errorf("the same, added again: %v", err)
	}
	if db.Get(s.ID) != sa || db.Get(spec(256, 1, 2).ID) != sa || !sa.Spec().Dst.Is4() {
		t.Error("not found")
	}
	if got := slices.Collect(db.Pair(ProtoESP, s.Src, s.Dst)); !slices.Equal(got, []*SA{sa}) {
		t.Errorf("between the mapped addresses: %v", got)
	}
}

// An iteration shows what was there when it began.
func TestAllIsASnapshot(t *testing.T) {
	db := New()
	for i := range uint32(4) {
		if err := db.Add(newSA(t, spec(300-i, 1, 2))); err != nil {
			t.Fatal(err)
		}
	}
	var seen []uint32
	for sa := range db.All() {
		seen = append(seen, sa.Spec().SPI)
		db.Flush(0)
	}
	if want := []uint32{300, 299, 298, 297}; !slices.Equal(seen, want) || db.Len() != 0 {
		t.Errorf("saw %v, want %v", seen, want)
	}
}

func TestPairIsASnapshot(t *testing.T) {
	db := New()
	for i := range uint32(3) {
		if err := db.Add(newSA(t, spec(300+i, 1, 2))); err != nil {
			t.Fatal(err)
		}
	}
	s := spec(300, 1, 2)
	var seen []uint32
	for sa := range db.Pair(s.Proto, s.Src, s.Dst) {
		seen = append(seen, sa.Spec().SPI)
		if _, err := db.Delete(sa.Spec().ID); err != nil {
			t.Fatal(err)
		}
	}
	if want := []uint32{302, 301, 300}; !slices.Equal(seen, want) || db.Len() != 0 {
		t.Errorf("saw %v, want %v", seen, want)
	}
}

// One SPI may serve any number of peers.
func TestOneSPI(t *testing.T) {
	db := New()
	var sas []*SA
	for i := range uint32(3000) {
		sas = append(sas, added(t, db, coldSpec(i)))
	}
	for i, sa := range sas {
		if i%3 == 0 {
			del(t, db, sa)
		}
	}
	for i, sa := range sas {
		want := sa
		if i%3 == 0 {
			want = nil
		}
		if got := db.Lookup(0x1000, ProtoESP, &sa.Dst); got != want {
			t.Fatalf("to %v: %v, want %v", sa.spec.Dst, got, want)
		}
		if got := db.Outbound(ProtoESP, ModeTunnel, 0, &sa.Src, &sa.Dst); got != want {
			t.Fatalf("out to %v: %v, want %v", sa.spec.Dst, got, want)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	db := New()
	r := db.NewReader()
	sa := newSA(t, spec(256, 1, 2))
	if err := db.Add(sa); err != nil {
		t.Fatal(err)
	}
	extended := esn(t, 64, 1<<32, 1<<32)
	sa.Window.Accept(1)
	seq := uint64(1)
	sa.Drop(packet.BadICV, 1)
	for name, f := range map[string]func(){
		"Lookup":     func() { db.Lookup(256, ProtoESP, &sa.Dst) },
		"no SA":      func() { db.Lookup(257, ProtoESP, &sa.Dst) },
		"Outbound":   func() { db.Outbound(ProtoESP, ModeTunnel, 0, &sa.Src, &sa.Dst) },
		"Generation": func() { db.Generation() },
		"Reserve":    func() { sa.Reserve(3) },
		"Count":      func() { sa.Count(3, 99, 7) },
		"Usage":      func() { sa.Usage() },
		"Retired":    func() { sa.Retired() },
		"Spec":       func() { sa.Spec() },
		"Encap":      func() { sa.Encap() },
		"Sequence":   func() { extended.Sequence(9) },
		"ESN":        func() { extended.Reserve(3) },
		"Check":      func() { sa.Window.Check(seq) },
		"Accept":     func() { seq++; sa.Window.Accept(seq) },
		"Drop":       func() { sa.Drop(packet.BadICV, 1) },
		"Drops":      func() { sa.Drops() },
		"a burst":    func() { r.Enter(); r.Leave() },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
