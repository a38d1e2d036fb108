package sad

import (
	"errors"
	"sync"
	"testing"
)

// The ports of an SA move, all at once; those it was added with stay in its Spec.
func TestSetEncap(t *testing.T) {
	db := New()
	s := spec(256, 1, 2)
	s.Encap = Encap{4500, 4501}
	sa := added(t, db, s)
	raw := added(t, db, spec(257, 1, 2))
	if sa.Encap() != s.Encap || raw.Encap() != (Encap{}) {
		t.Errorf("as added: %v and %v", sa.Encap(), raw.Encap())
	}
	generation := db.Generation()
	for _, tt := range []struct {
		name string
		id   ID
		to   Encap
		want error
	}{
		{"moved", sa.spec.ID, Encap{65535, 1}, nil},
		{"and back", sa.spec.ID, Encap{1, 65535}, nil},
		{"no port", sa.spec.ID, Encap{1, 0}, ErrSpec},
		{"no encapsulation any more", sa.spec.ID, Encap{}, ErrSpec},
		{"none to begin with", raw.spec.ID, Encap{4500, 4500}, ErrSpec},
		{"no such SA", spec(258, 1, 2).ID, Encap{4500, 4500}, ErrNotFound},
	} {
		before := sa.Encap()
		err := db.SetEncap(tt.id, tt.to)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if err == nil {
			before = tt.to
		}
		if sa.Encap() != before || raw.Encap() != (Encap{}) || sa.Spec().Encap != s.Encap {
			t.Errorf("%s: now %v", tt.name, sa.Encap())
		}
	}
	if db.Generation() != generation {
		t.Error("the SA was neither added nor removed")
	}
}

// A reader sees both ports of one move, never of two.
func TestEncapIsAtomic(t *testing.T) {
	db := New()
	s := spec(256, 1, 2)
	s.Encap = Encap{1, 1}
	sa := added(t, db, s)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 20000 {
				if e := sa.Encap(); e.SrcPort != e.DstPort {
					t.Errorf("ports of two moves: %v", e)
					return
				}
			}
		})
	}
	for port := uint16(1); port < 5000; port++ {
		if err := db.SetEncap(s.ID, Encap{port, port}); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}
