package control

import (
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"ipsecd/crypto/alg"
	"ipsecd/pfkey"
	"ipsecd/sad"
	"ipsecd/spd"
)

var (
	here, there = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	nobodys     = netip.MustParseAddr("203.0.113.9")
)

func newSA(t *testing.T, spi uint32, dst netip.Addr) *sad.SA {
	t.Helper()
	sa, err := sad.NewSA(sad.Spec{
		ID: sad.ID{SPI: spi, Proto: sad.ProtoESP, Dst: dst}, Src: here,
		Enc: alg.AESGCM16, EncKey: make([]byte, 20),
	})
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

func address(a netip.Addr) *pfkey.Address {
	return &pfkey.Address{Proto: 255, PrefixLen: 32, Addr: a}
}

// A transaction takes maxStaged changes of each database, and COMMIT or a flush
// makes room again.
func TestTransactionIsBounded(t *testing.T) {
	add := func(spi uint32) *pfkey.Message {
		return &pfkey.Message{
			Type: pfkey.ADD, SAType: pfkey.SATypeESP, SA: &pfkey.SA{SPI: spi, Enc: alg.AESGCM16},
			Src: address(here), Dst: address(there), EncKey: &pfkey.Key{Bits: 160, Data: make([]byte, 20)},
		}
	}
	natt := &pfkey.NATT{Type: pfkey.TypeNATT, SrcPort: 4500, DstPort: 4500}
	encapsulated := func(spi uint32) *pfkey.Message {
		m := add(spi)
		m.NATT = natt
		return m
	}
	update := func(spi uint32) *pfkey.Message {
		m := add(spi)
		m.Type = pfkey.UPDATE
		return m
	}
	move := func(spi uint32) *pfkey.Message {
		return &pfkey.Message{
			Type: pfkey.UPDATE, SAType: pfkey.SATypeESP, SA: &pfkey.SA{SPI: spi},
			Src: address(here), Dst: address(there), NATT: natt,
		}
	}
	remove := func(spi uint32) *pfkey.Message {
		return &pfkey.Message{
			Type: pfkey.DELETE, SAType: pfkey.SATypeESP, SA: &pfkey.SA{SPI: spi},
			Src: address(here), Dst: address(there),
		}
	}
	removeAll := remove(0)
	removeAll.SA = nil
	policy := func(typ uint8, dst netip.Addr) *pfkey.Message {
		return &pfkey.Message{
			Type: typ, Src: address(here), Dst: address(dst),
			Policy: &pfkey.Policy{Type: pfkey.PolicyNone, Dir: pfkey.DirOut},
		}
	}
	sas := func(n int) func(*transaction) { return func(t *transaction) { t.sas.order = make([]*sad.SA, n) } }
	singles := func(n int) func(*transaction) {
		return func(t *transaction) {
			t.sas.changes = make(map[sad.ID]change, n)
			for i := range n {
				t.sas.changes[sad.ID{SPI: uint32(i), Proto: 99}] = change{}
			}
		}
	}
	changes := func(n int) func(*transaction) {
		nothing := func(*spd.Txn) error { return nil }
		return func(t *transaction) {
			for range n {
				t.remember(nothing)
			}
		}
	}
	flush, spdflush := &pfkey.Message{Type: pfkey.FLUSH}, &pfkey.Message{Type: pfkey.SPDFLUSH}
	tests := []struct {
		name   string
		before func(*transaction)
		asks   []*pfkey.Message
		want   syscall.Errno // of the last one; the others succeed
	}{
		{"the last SA", sas(maxStaged - 1), []*pfkey.Message{add(0x2000)}, 0},
		{"one SA more", sas(maxStaged - 1), []*pfkey.Message{add(0x2000), add(0x2001)}, syscall.ENOBUFS},
		{"one deletion more", sas(maxStaged - 1), []*pfkey.Message{add(0x2000), remove(0x1000)}, syscall.ENOBUFS},
		{"one deletion of a pair more", sas(maxStaged), []*pfkey.Message{removeAll}, syscall.ENOBUFS},
		{"one SA after changes", singles(maxStaged), []*pfkey.Message{add(0x2000)}, syscall.ENOBUFS},
		{"the last replacement", sas(maxStaged - 1), []*pfkey.Message{update(0x1000)}, 0},
		{"one replacement more", sas(maxStaged), []*pfkey.Message{update(0x1000)}, syscall.ENOBUFS},
		{"a replacement of what was staged", sas(maxStaged - 1), []*pfkey.Message{add(0x2000), update(0x2000)}, 0},
		{"the last change of ports", sas(maxStaged - 1), []*pfkey.Message{move(0x1000)}, 0},
		{"one change of ports more", sas(maxStaged), []*pfkey.Message{move(0x1000)}, syscall.ENOBUFS},
		{"a change of what was changed", singles(maxStaged - 1), []*pfkey.Message{move(0x1000), update(0x1000), remove(0x1000)}, 0},
		{"what was staged goes", sas(maxStaged - 1), []*pfkey.Message{add(0x2000), remove(0x2000)}, 0},
		{"SAs after a flush", sas(maxStaged), []*pfkey.Message{flush, add(0x2000)}, 0},
		{"the last policy", changes(maxStaged - 1), []*pfkey.Message{policy(pfkey.SPDADD, nobodys)}, 0},
		{"one policy more", changes(maxStaged), []*pfkey.Message{policy(pfkey.SPDADD, nobodys)}, syscall.ENOBUFS},
		{"one policy less, in one change more", changes(maxStaged), []*pfkey.Message{policy(pfkey.SPDDELETE, there)}, syscall.ENOBUFS},
		{"one policy replaced more", changes(maxStaged), []*pfkey.Message{policy(pfkey.SPDUPDATE, there)}, syscall.ENOBUFS},
		{"policies after a flush", changes(maxStaged), []*pfkey.Message{spdflush, policy(pfkey.SPDADD, there)}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := New(Config{SAD: sad.New(), SPD: spd.New(), NATTPort: 4500})
			var s Session
			for _, m := range []*pfkey.Message{encapsulated(0x1000), policy(pfkey.SPDADD, there), {Type: pfkey.BEGIN}} {
				if r := e.Handle(&s, m)[0]; r.Errno != 0 {
					t.Fatal(pfkey.TypeName(m.Type), syscall.Errno(r.Errno), r.Text)
				}
			}
			tt.before(s.txn)
			for i, m := range tt.asks {
				want := tt.want
				if i < len(tt.asks)-1 {
					want = 0
				}
				if r := e.Handle(&s, m)[0]; syscall.Errno(r.Errno) != want {
					t.Errorf("%s: %v %q, want %v", pfkey.TypeName(m.Type), syscall.Errno(r.Errno), r.Text, want)
				}
			}
		})
	}
}

// IDs of policies begin again behind the last, and leave out those in use.
func TestPolicyIDsBeginAgain(t *testing.T) {
	e := New(Config{SAD: sad.New(), SPD: spd.New()})
	e.lastPolicyID = ^uint32(0) - 1
	var got []uint32
	for _, dst := range []netip.Addr{there, nobodys, here} {
		r := e.Handle(new(Session), &pfkey.Message{Type: pfkey.SPDADD, Src: address(here), Dst: address(dst),
			Policy: &pfkey.Policy{Type: pfkey.PolicyNone, Dir: pfkey.DirOut}})[0]
		got = append(got, r.Policy.ID)
		if len(got) == 2 {
			e.lastPolicyID = ^uint32(0) - 1
		}
	}
	if want := []uint32{^uint32(0), 1, 2}; !slices.Equal(got, want) {
		t.Errorf("IDs %#x, want %#x", got, want)
	}
}

// A replacement that finds no room leaves the SA that it would replace.
func TestReplacementWithoutRoom(t *testing.T) {
	staged := stagedSAs{live: sad.New(), order: make([]*sad.SA, maxStaged)}
	old := newSA(t, 0x1000, there)
	if err := staged.live.Add(old); err != nil {
		t.Fatal(err)
	}
	if err := staged.replace(newSA(t, 0x1000, there)); err == nil {
		t.Fatal("there was room")
	}
	if staged.get(old.Spec().ID) != old {
		t.Error("the SA is gone")
	}
}

// What deletePair costs has nothing to do with the SAs of other pairs. A walk of
// them would need room for them.
func TestDeletePairLeavesTheRestAlone(t *testing.T) {
	cost := func(others uint32) float64 {
		staged := stagedSAs{live: sad.New()}
		for i := range others {
			if err := staged.live.Add(newSA(t, 0x1000+i, there)); err != nil {
				t.Fatal(err)
			}
		}
		return testing.AllocsPerRun(10, func() {
			if err := staged.deletePair(here, nobodys); err != nil {
				t.Fatal(err)
			}
		})
	}
	if few, many := cost(1), cost(1000); few != many {
		t.Errorf("%v allocations beside one SA, %v beside many", few, many)
	}
}

// A dump that is read slowly comes to SAs that are gone, keys and all.
func TestDumpTellsTheDead(t *testing.T) {
	e := New(Config{SAD: sad.New(), SPD: spd.New()})
	for spi := range uint32(2) {
		if err := e.cfg.SAD.Add(newSA(t, 0x1000+spi, there)); err != nil {
			t.Fatal(err)
		}
	}
	var states []uint8
	for r := range e.answer(new(Session), &pfkey.Message{Type: pfkey.DUMP}) {
		states = append(states, r.SA.State)
		if dead := r.SA.State == pfkey.StateDead; dead != (r.EncKey == nil) {
			t.Errorf("state %d, key %v", r.SA.State, r.EncKey)
		}
		e.cfg.SAD.Flush(0)
		e.cfg.SAD.Reap()
	}
	if want := []uint8{pfkey.StateMature, pfkey.StateDead}; !slices.Equal(states, want) {
		t.Errorf("states %d, want %d", states, want)
	}
}

// The keys of an SA that was staged go when it is known that no database will
// take it.
func TestStagedKeysAreWiped(t *testing.T) {
	wiped := func(sa *sad.SA) bool {
		enc, _ := sa.Keys()
		return !slices.ContainsFunc(enc, func(b byte) bool { return b != 0 })
	}
	message := func(typ uint8, spi uint32) *pfkey.Message {
		return &pfkey.Message{
			Type: typ, SAType: pfkey.SATypeESP, SA: &pfkey.SA{SPI: spi, Enc: alg.AESGCM16},
			Src: address(here), Dst: address(there), EncKey: &pfkey.Key{Bits: 160, Data: []byte("0123456789abcdefsalt")},
		}
	}
	remove := func(spi uint32) *pfkey.Message {
		m := message(pfkey.DELETE, spi)
		m.EncKey = nil
		return m
	}
	pair := remove(0)
	pair.SA = nil
	for name, asks := range map[string][]*pfkey.Message{
		"abort":         {{Type: pfkey.ABORT}},
		"flush":         {{Type: pfkey.FLUSH}},
		"update":        {message(pfkey.UPDATE, 0x1000), message(pfkey.UPDATE, 0x2000)},
		"delete":        {remove(0x1000), remove(0x2000)},
		"delete a pair": {pair},
	} {
		e := New(Config{SAD: sad.New(), SPD: spd.New()})
		var s Session
		for _, m := range append([]*pfkey.Message{
			message(pfkey.ADD, 0x1000), {Type: pfkey.BEGIN}, message(pfkey.UPDATE, 0x1000), message(pfkey.ADD, 0x2000),
		}, asks...) {
			var staged []*sad.SA
			if s.txn != nil {
				staged = s.txn.sas.all()
			}
			if r := e.Handle(&s, m)[0]; r.Errno != 0 {
				t.Fatal(name, syscall.Errno(r.Errno), r.Text)
			}
			if m == asks[len(asks)-1] && !wiped(staged[len(staged)-1]) {
				t.Errorf("%s: a key stays", name)
			}
			if m == asks[0] && name != "delete a pair" && !wiped(staged[0]) {
				t.Errorf("%s: the first key stays", name)
			}
		}
		if wiped(e.cfg.SAD.Get(sad.ID{SPI: 0x1000, Proto: sad.ProtoESP, Dst: there})) {
			t.Errorf("%s: the live SA lost its key", name)
		}
	}
}
