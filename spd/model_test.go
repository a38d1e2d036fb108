package spd_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"ipsecd/packet"
	"ipsecd/spd"
	"ipsecd/spd/internal/golden"
)

// The generators draw from so few bits that selectors meet, nest and repeat.

func drawAddr(t *rapid.T, v4 bool) netip.Addr {
	bits := rapid.Byte().Draw(t, "addr")
	if v4 {
		return netip.AddrFrom4([4]byte{10, bits & 0xc0, 0, bits & 0x3})
	}
	return netip.AddrFrom16([16]byte{0: 0x20, 7: bits & 0x81, 8: bits & 0xc0, 15: bits & 0x3})
}

func drawPrefix(t *rapid.T, v4 bool) netip.Prefix {
	lens := []int{0, 1, 7, 63, 64, 65, 66, 127, 128}
	if v4 {
		lens = []int{0, 1, 8, 9, 10, 31, 32}
	}
	return netip.PrefixFrom(drawAddr(t, v4), rapid.SampledFrom(lens).Draw(t, "len")).Masked()
}

func drawPort(t *rapid.T) uint16 {
	return rapid.SampledFrom([]uint16{0, 0, 1, 2, 0x8000}).Draw(t, "port")
}

func drawDir(t *rapid.T) spd.Dir { return rapid.SampledFrom([]spd.Dir{spd.In, spd.Out}).Draw(t, "dir") }

func drawPolicy(t *rapid.T) *spd.Policy {
	v4 := rapid.Bool().Draw(t, "v4")
	return &spd.Policy{
		Dir:      drawDir(t),
		Action:   rapid.SampledFrom([]spd.Action{spd.Discard, spd.None, spd.IPsec}).Draw(t, "action"),
		Priority: rapid.SampledFrom([]uint32{0, 0, 0, 1, 1 << 31, ^uint32(0)}).Draw(t, "priority"),
		Sel: spd.Selector{
			Src: drawPrefix(t, v4), Dst: drawPrefix(t, v4),
			Proto:   rapid.SampledFrom([]uint8{spd.ProtoAny, tcp, udp, 0}).Draw(t, "proto"),
			SrcPort: drawPort(t), DstPort: drawPort(t),
		},
	}
}

func drawFlow(t *rapid.T) packet.Flow {
	v4 := rapid.Bool().Draw(t, "v4")
	f := packet.Flow{
		Src: packet.AddrFrom(drawAddr(t, v4)), Dst: packet.AddrFrom(drawAddr(t, v4)), V: 6,
		Proto:  rapid.SampledFrom([]uint8{tcp, udp, 0, 60, 255}).Draw(t, "proto"),
		Opaque: rapid.IntRange(0, 3).Draw(t, "opaque") == 0,
	}
	if v4 {
		f.V = 4
	}
	if !f.Opaque {
		f.SrcPort, f.DstPort = drawPort(t), drawPort(t)
	}
	return f
}

// lookups compares both databases on a few flows.
func lookups(t *rapid.T, lookup func(spd.Dir, *packet.Flow) *spd.Policy, want *golden.List) {
	for range 8 {
		f, dir := drawFlow(t), drawDir(t)
		if got, want := lookup(dir, &f), want.Lookup(dir, &f); got != want {
			t.Fatalf("direction %d, flow %+v:\ngot  %s\nwant %s", dir, f, describe(got), describe(want))
		}
	}
}

func describe(p *spd.Policy) string {
	if p == nil {
		return "none"
	}
	return fmt.Sprintf("%d: %+v action %d priority %d", p.ID, p.Sel, p.Action, p.Priority)
}

func TestAgainstGolden(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		db, list := spd.New(), new(golden.List)
		txn, work := db.Begin(), list.Clone()
		var drawn []*spd.Policy
		var nextID uint32

		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				for range rapid.IntRange(1, 20).Draw(t, "n") {
					p := drawPolicy(t)
					nextID++
					p.ID = nextID
					drawn = append(drawn, p)
					if got, want := txn.Add(p), work.Add(p); got != want {
						t.Fatalf("add %+v: %v, want %v", p.Sel, got, want)
					}
				}
			},
			"delete": func(t *rapid.T) {
				if len(drawn) == 0 {
					t.Skip("nothing to delete")
				}
				for range rapid.IntRange(1, 10).Draw(t, "n") {
					p, dir := rapid.SampledFrom(drawn).Draw(t, "policy"), drawDir(t)
					got, err := txn.Delete(p.Sel, dir)
					want, wantErr := work.Delete(p.Sel, dir)
					if got != want || err != wantErr {
						t.Fatalf("delete %+v: %s, %v, want %s, %v", p.Sel, describe(got), err, describe(want), wantErr)
					}
				}
			},
			"replace": func(t *rapid.T) {
				for range rapid.IntRange(1, 10).Draw(t, "n") {
					p := drawPolicy(t)
					if len(drawn) > 0 && rapid.Bool().Draw(t, "known") {
						p.Sel = rapid.SampledFrom(drawn).Draw(t, "policy").Sel
					}
					nextID++
					p.ID = nextID
					drawn = append(drawn, p)
					got, err := txn.Replace(p)
					if want := work.Replace(p); got != want || err != nil {
						t.Fatalf("replace %+v: %s, %v, want %s", p.Sel, describe(got), err, describe(want))
					}
				}
			},
			"flush": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "mercy") > 0 {
					t.Skip("kept")
				}
				if got, want := txn.Flush(), work.Flush(); got != want {
					t.Fatalf("%d flushed, want %d", got, want)
				}
			},
			"commit": func(t *rapid.T) {
				if !txn.Commit() {
					t.Fatal("commit lost to nobody")
				}
				list = work
				txn, work = db.Begin(), list.Clone()
			},
			"abandon": func(*rapid.T) { txn, work = db.Begin(), list.Clone() },
			"": func(t *rapid.T) {
				if got, want := slices.Collect(txn.All()), work.All(); !slices.Equal(got, want) {
					t.Fatalf("transaction holds %d policies, want %d, or in another order", len(got), len(want))
				}
				if got, want := slices.Collect(db.All()), list.All(); !slices.Equal(got, want) {
					t.Fatalf("database holds %d policies, want %d, or in another order", len(got), len(want))
				}
				if got, want := db.Len(), len(list.All()); got != want {
					t.Fatalf("length %d, want %d", got, want)
				}
				id := rapid.Uint32Max(nextID+1).Draw(t, "id")
				if txn.Get(id) != work.Get(id) || db.Get(id) != list.Get(id) {
					t.Fatalf("ID %d is of %s and %s, want %s and %s", id, describe(txn.Get(id)), describe(db.Get(id)),
						describe(work.Get(id)), describe(list.Get(id)))
				}
				lookups(t, db.Lookup, list)
			},
		})
	})
}

// A snapshot that a reader holds stays as it was.
func TestSnapshots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		db, list := spd.New(), new(golden.List)
		for range 5 {
			txn := db.Begin()
			for range 10 {
				if p := drawPolicy(t); txn.Add(p) == nil {
					_ = list.Add(p)
				}
			}
			txn.Commit()
			old, want := db.All(), list.All()

			txn = db.Begin()
			for i, p := range want {
				if i%2 == 0 {
					_, _ = txn.Delete(p.Sel, p.Dir)
					_, _ = list.Delete(p.Sel, p.Dir)
				}
			}
			txn.Commit()
			if got := slices.Collect(old); !slices.Equal(got, want) {
				t.Fatalf("snapshot changed from %d to %d policies", len(want), len(got))
			}
		}
	})
}

// Two policies are swapped for one another in one commit, over and over, under
// lookups: there is always exactly one of them, and under one generation always
// the same.
func TestConcurrentLookup(t *testing.T) {
	const commits = 2000
	db := spd.New()
	commit(t, db, policy("10.0.0.0/8", "10.0.0.0/8", spd.ProtoAny, 0, 0))
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			f := flow("10.1.2.3", "10.4.5.6", tcp, 1, 2)
			for {
				select {
				case <-done:
					return
				default:
				}
				before := db.Generation(spd.Out)
				p := db.Lookup(spd.Out, &f)
				if p == nil || db.Len() != 1 {
					t.Error("half a commit was seen")
					return
				}
				if db.Generation(spd.Out) == before && uint64(p.ID) != before {
					t.Errorf("policy %d under generation %d", p.ID, before)
					return
				}
				p.LastUsed.Store(1)
				for range db.All() {
				}
			}
		})
	}
	prefixes := []string{"10.0.0.0/8", "0.0.0.0/0", "10.4.0.0/16", "10.4.5.6/32"}
	start := db.Generation(spd.Out)
	for i := range uint64(commits) {
		txn := db.Begin()
		for p := range txn.All() {
			if _, err := txn.Delete(p.Sel, p.Dir); err != nil {
				t.Error(err)
			}
		}
		p := policy("10.0.0.0/8", prefixes[i%4], tcp, uint16(i%2), 0)
		p.ID = uint32(start + i + 1)
		if err := txn.Add(p); err != nil {
			t.Error(err)
		}
		if !txn.Commit() {
			t.Error("commit lost to nobody")
		}
	}
	close(done)
	readers.Wait()
}
