package sad

import "testing"

// With ESN the high half of what arrives outlives the SA that is loaded again: the
// wire does not show it, so an empty window would take each packet for another.
func TestReloadKeepsHighHalf(t *testing.T) {
	const top = 5<<32 + 100
	for name, reload := range map[string]func(*DB, *SA, *SA) error{
		"delete and add": func(db *DB, old, sa *SA) error {
			if _, err := db.Delete(old.Spec().ID); err != nil {
				return err
			}
			return db.Add(sa)
		},
		"flush and add": func(db *DB, _, sa *SA) error { db.Flush(0); return db.Add(sa) },
		"replace":       func(db *DB, _, sa *SA) error { db.Replace(sa); return nil },
		"update":        func(db *DB, _, sa *SA) error { return db.Update(sa) },
	} {
		t.Run(name, func(t *testing.T) {
			for esn, want := range map[bool]uint64{true: 5<<32 + 101, false: 101} {
				s := spec(0x1000, 1, 2)
				s.ESN = esn
				db, old, sa := New(), newSA(t, s), newSA(t, s)
				if err := db.Add(old); err != nil {
					t.Fatal(err)
				}
				old.Window.Resume(100)
				if esn {
					old.Window.Resume(top)
				}
				if err := reload(db, old, sa); err != nil {
					t.Fatal(err)
				}
				if got := sa.Sequence(101); got != want {
					t.Errorf("ESN %v: 101 is taken for %#x, want %#x", esn, got, want)
				}
				if esn && sa.Window.Check(top) {
					t.Error("what was accepted is fresh again")
				}
			}
		})
	}
}
