package control_test

import (
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ipsecd/control"
	"ipsecd/pfkey"
	"ipsecd/sad"
)

// The session sees at once what it staged, everybody else at the commit.
func TestUpdateInATransaction(t *testing.T) {
	b := newBench(t)
	b.must(t, encapsulated(0x1000, 61001), encapsulated(0x1001, 61001), encapsulated(0x1002, 61001), encapsulated(0x1003, 61001))
	b.must(t, bare(pfkey.BEGIN), encapsulated(0x2000, 61001),
		move(0x1000, 1), move(0x1001, 1), move(0x1002, 1), move(0x2000, 1), // another session's view does not change
		named(pfkey.DELETE, 0x1001, a4, b4), encapsulated(0x1001, 2), // what was moved is there anew
		with(encapsulated(0x1002, 3), func(m *pfkey.Message) { m.Type = pfkey.UPDATE }),
		move(0x1002, 4), move(0x1000, 5))
	want := map[uint32]uint16{0x1000: 5, 0x1001: 2, 0x1002: 4, 0x1003: 61001, 0x2000: 1}
	staged := map[uint32]uint16{}
	for _, r := range b.ask(bare(pfkey.DUMP)) {
		staged[r.SA.SPI] = r.NATT.DstPort
	}
	if d := cmp.Diff(want, staged); d != "" {
		t.Errorf("staged ports, want - got +:\n%s", d)
	}
	for sa := range b.sad.All() {
		if sa.Encap().DstPort != 61001 {
			t.Errorf("SPI %#x changed before the commit", sa.Spec().SPI)
		}
	}
	kept := b.sa(0x1000)
	b.must(t, bare(pfkey.COMMIT))
	live := map[uint32]uint16{}
	for sa := range b.sad.All() {
		live[sa.Spec().SPI] = sa.Encap().DstPort
	}
	if d := cmp.Diff(want, live); d != "" || b.sa(0x1000) != kept {
		t.Errorf("ports after the commit, want - got +:\n%s", d)
	}
}

func TestUpdatesAreForgotten(t *testing.T) {
	for _, undo := range []*pfkey.Message{bare(pfkey.ABORT), bare(pfkey.FLUSH)} {
		b := newBench(t)
		b.must(t, encapsulated(0x1000, 61001), encapsulated(0x1001, 61001), bare(pfkey.BEGIN))
		before := slices.Collect(b.sad.All())
		b.must(t, move(0x1000, 1), rekey(encapsulated(0x1001, 1)), undo)
		if undo.Type == pfkey.FLUSH {
			if n := len(b.ask(bare(pfkey.DUMP))); n != 1 || b.errno(&b.session, move(0x1000, 1)) != syscall.ENOENT {
				t.Errorf("%d answers to a dump after the flush", n)
			}
			b.must(t, bare(pfkey.ABORT))
		}
		if got := slices.Collect(b.sad.All()); !slices.Equal(got, before) || got[0].Encap().DstPort != 61001 {
			t.Errorf("%d SAs, port %d", len(got), got[0].Encap().DstPort)
		}
	}
}

// What was staged about an SA lies on top of other ports that another session
// gave it meanwhile. It fails, with the rest of the transaction, where the other
// replaced or removed the SA; to remove what is gone is done already.
func TestUpdateOnTopOfOthers(t *testing.T) {
	type messages = []*pfkey.Message
	remove := messages{named(pfkey.DELETE, 0x1000, a4, b4)}
	moved := func(port uint16) messages { return messages{move(0x1000, port)} }
	replaced := func(port uint16) messages { return messages{rekey(encapsulated(0x1000, port))} }
	again := func(src netip.Addr, port uint16) messages { // from a source
		m := with(rekey(encapsulated(0x1000, port)), func(m *pfkey.Message) { m.Type, m.Src = pfkey.ADD, host(src) })
		return append(slices.Clone(remove), m)
	}
	third := netip.MustParseAddr("203.0.113.3")
	tests := []struct {
		name        string
		mine, other messages
		want        syscall.Errno
		port        uint16 // of SPI 0x1000 in the end
		key         byte
	}{
		{"moved by both", moved(1), moved(2), 0, 1, 0},
		{"moved, replaced", moved(1), replaced(2), syscall.EEXIST, 2, 0x77},
		{"moved, from elsewhere", moved(1), again(third, 2), syscall.EEXIST, 2, 0x77},
		{"moved, deleted", moved(1), remove, syscall.ENOENT, 0, 0},
		{"moved, made plain", moved(1), messages{rekey(add(0x1000, a4, b4))}, syscall.EEXIST, 0, 0x77},
		{"replaced, moved", replaced(1), moved(2), 0, 1, 0x77},
		{"replaced by both", replaced(1), replaced(2), syscall.EEXIST, 2, 0x77},
		{"replaced, from elsewhere", replaced(1), again(third, 2), syscall.EEXIST, 2, 0x77},
		{"replaced, deleted", replaced(1), remove, syscall.ENOENT, 0, 0},
		{"deleted by both", remove, remove, 0, 0, 0},
		{"deleted, moved", remove, moved(2), 0, 0, 0},
		{"deleted, replaced", remove, replaced(2), syscall.EEXIST, 2, 0x77},
		{"deleted, from elsewhere", remove, again(third, 2), syscall.EEXIST, 2, 0x77},
		{"added again, deleted", again(a4, 1), remove, 0, 1, 0x77},
		{"added again, from elsewhere", again(a4, 1), again(third, 2), syscall.EEXIST, 2, 0x77},
		{"flushed, replaced", messages{bare(pfkey.FLUSH)}, replaced(2), 0, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			b.must(t, encapsulated(0x1000, 61001), bare(pfkey.BEGIN))
			b.must(t, tt.mine...)
			b.must(t, add(0x3000, a4, b4))
			b.mustElsewhere(t, tt.other...)
			if got := b.errno(&b.session, bare(pfkey.COMMIT)); got != tt.want {
				t.Errorf("commit: %v", got)
			}
			if committed := b.sa(0x3000) != nil; committed != (tt.want == 0) {
				t.Errorf("the rest was committed: %v", committed)
			}
			sa := b.sa(0x1000)
			if tt.port == 0 && tt.key == 0 {
				if sa != nil {
					t.Error("it is back")
				}
				return
			}
			if enc, _ := sa.Keys(); sa.Encap().DstPort != tt.port || enc[0] != tt.key {
				t.Errorf("port %d, key %x", sa.Encap().DstPort, enc[0])
			}
		})
	}
}

// A deleteall takes along what was moved or replaced.
func TestDeletePairAfterUpdates(t *testing.T) {
	b := newBench(t)
	b.must(t, encapsulated(0x1000, 61001), encapsulated(0x1001, 61001), bare(pfkey.BEGIN), encapsulated(0x1002, 61001),
		move(0x1000, 1), rekey(encapsulated(0x1001, 1)), move(0x1001, 2), move(0x1002, 1),
		with(named(pfkey.DELETE, 0, a4, b4), func(m *pfkey.Message) { m.SA = nil }), bare(pfkey.COMMIT))
	if got := b.spis(); len(got) != 0 {
		t.Errorf("left are %#x", got)
	}
}

// Readers find an SA, and sessions see one another's whole updates, while several
// sessions update it both ways.
func TestConcurrentUpdates(t *testing.T) {
	b := newBench(t)
	b.must(t, encapsulated(0x1000, 61001))
	var sessions sync.WaitGroup
	for n := range uint16(3) {
		sessions.Go(func() {
			var s control.Session
			src, dst := a4.As16(), b4.As16()
			for i := range uint16(100) {
				m := move(0x1000, 1+n)
				if i%2 == 0 {
					m = rekey(encapsulated(0x1000, 1+n))
				}
				for _, m := range []*pfkey.Message{bare(pfkey.BEGIN), m, spdupdate("10.1.0.0/16", "10.2.0.0/16"), bare(pfkey.COMMIT)} {
					got := b.errno(&s, m)
					if late := m.Type == pfkey.COMMIT && got == syscall.EEXIST; got != 0 && !late {
						t.Errorf("%s: %v", pfkey.TypeName(m.Type), got)
					}
				}
				sa := b.sad.Outbound(sad.ProtoESP, sad.ModeTunnel, 0, &src, &dst)
				if sa == nil || sa.Encap().SrcPort != nattPort || b.spd.Len() > 1 {
					t.Errorf("SA %v, %d policies", sa, b.spd.Len())
				}
			}
		})
	}
	sessions.Wait()
	if b.sad.Len() != 1 {
		t.Errorf("%d SAs", b.sad.Len())
	}
}

// What was moved and deleted, or added again, has nothing to do any more with
// what others do to the SA that it was.
func TestMovesEndWithTheSA(t *testing.T) {
	remove := func() *pfkey.Message { return named(pfkey.DELETE, 0x1000, a4, b4) }
	b := newBench(t)
	b.must(t, encapsulated(0x1000, 61001), bare(pfkey.BEGIN), move(0x1000, 1), remove())
	b.mustElsewhere(t, remove())
	b.must(t, bare(pfkey.COMMIT))

	b.must(t, encapsulated(0x1000, 61001), bare(pfkey.BEGIN), move(0x1000, 1))
	b.mustElsewhere(t, remove())
	b.must(t, encapsulated(0x1000, 2))
	if port := b.port(t, 0x1000); port != 2 {
		t.Errorf("port %d", port)
	}
	b.must(t, bare(pfkey.COMMIT))
	if sa := b.sa(0x1000); sa == nil || sa.Encap().DstPort != 2 {
		t.Errorf("got %v", sa)
	}
}
