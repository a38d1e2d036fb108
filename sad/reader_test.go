package sad

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"ipsecd/crypto"
	"ipsecd/crypto/alg"
)

func zeroed(octets []byte) bool {
	return !slices.ContainsFunc(octets, func(b byte) bool { return b != 0 })
}

// usable reports whether ciphers can still be made of a Suite.
func usable(s *crypto.Suite) (yes bool) {
	defer func() { yes = recover() == nil }()
	s.NewCipher()
	return
}

// What was removed is wiped as soon as no reader is in a burst that began before.
func TestReap(t *testing.T) {
	type step struct {
		do    func(a, b *Reader)
		waits int // for Reap, behind it
	}
	enterA := func(a, _ *Reader) { a.Enter() }
	leaveA := func(a, _ *Reader) { a.Leave() }
	enterB := func(_, b *Reader) { b.Enter() }
	leaveB := func(_, b *Reader) { b.Leave() }
	closeA := func(a, _ *Reader) { a.Close() }
	for _, tt := range []struct {
		name          string
		before, after []step
	}{
		{"idle readers", nil, []step{{func(a, b *Reader) {}, 0}}},
		{"passed before", []step{{enterA, 0}, {leaveA, 0}}, []step{{enterA, 0}}},
		{"one in a burst", []step{{enterA, 0}}, []step{{enterB, 1}, {leaveB, 1}, {leaveA, 0}}},
		{"its next burst", []step{{enterA, 0}}, []step{{leaveA, 0}, {enterA, 0}}},
		{"two in a burst", []step{{enterA, 0}, {enterB, 0}}, []step{{leaveA, 1}, {enterA, 1}, {leaveB, 0}}},
		{"closed in a burst", []step{{enterA, 0}}, []step{{enterB, 1}, {closeA, 0}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			db := New()
			a, b := db.NewReader(), db.NewReader()
			run := func(steps []step) {
				t.Helper()
				for i, s := range steps {
					s.do(a, b)
					if n := db.Reap(); n != s.waits {
						t.Fatalf("step %d: %d wait, want %d", i, n, s.waits)
					}
				}
			}
			sa := added(t, db, spec(256, 1, 2))
			octets := sa.keys
			run(tt.before)
			held := a.at.Load() != idle || b.at.Load() != idle
			del(t, db, sa)
			if zeroed(octets) == held || usable(sa.Suite) != held {
				t.Errorf("zeroed is %v, the suite usable %v, while held is %v", zeroed(octets), usable(sa.Suite), held)
			}
			if enc, _ := sa.Keys(); bytes.Equal(enc, spec(256, 1, 2).EncKey) != held {
				t.Errorf("Keys is %d octets, while held is %v", len(enc), held)
			}
			run(tt.after)
			if enc, auth := sa.Keys(); !zeroed(octets) || enc != nil || auth != nil || usable(sa.Suite) {
				t.Errorf("not wiped: %d and %d octets", len(enc), len(auth))
			}
		})
	}
}

// Graves of several epochs, of every way to remove: each waits for its own.
func TestReapInOrder(t *testing.T) {
	db := New()
	a, b := db.NewReader(), db.NewReader()
	var octets [][]byte
	add := func(spi uint32) *SA {
		sa := added(t, db, spec(spi, 1, 2))
		octets = append(octets, sa.keys)
		return sa
	}
	first, _, _ := add(256), add(257), add(258)
	a.Enter()
	del(t, db, first)
	b.Enter()
	successor := newSA(t, spec(257, 1, 2))
	octets = append(octets, successor.keys)
	db.Replace(successor)
	db.Flush(0)
	if n := db.Reap(); n != 4 {
		t.Errorf("%d wait, want all 4", n)
	}
	a.Leave()
	if n := db.Reap(); n != 3 || !zeroed(octets[0]) || zeroed(octets[1]) || zeroed(octets[2]) || zeroed(octets[3]) {
		t.Errorf("%d wait, want all but the first", n)
	}
	b.Leave()
	if n := db.Reap(); n != 0 || !zeroed(bytes.Join(octets, nil)) || db.graves != nil {
		t.Errorf("%d wait, or not all are wiped", n)
	}
	a.Close()
	b.Close()
	if len(db.readers) != 0 {
		t.Errorf("%d readers kept", len(db.readers))
	}
}

// What an SA leaves behind, the IVs and numbers of its keys, is written down when
// it goes, not when it is wiped: it comes back meanwhile and goes on.
func TestBackBeforeWiped(t *testing.T) {
	db, _ := newAt(5000)
	r := db.NewReader()
	sa := added(t, db, spec(256, 1, 2))
	before := sa.Reserve(5)
	r.Enter()
	del(t, db, sa)
	again := added(t, db, spec(256, 1, 2)).Reserve(1)
	r.Leave()
	if n := db.Reap(); n != 0 || again.Seq != before.Seq+5 || again.IV != before.IV+5 {
		t.Errorf("goes on with %+v after %+v, %d wait", again, before, n)
	}
}

// Readers of two workers never share a pair of cache lines.
func TestReadersLieApart(t *testing.T) {
	db := New()
	for range 20 {
		if r := db.NewReader(); unsafe.Sizeof(*r) != 128 || uintptr(unsafe.Pointer(r))%128 != 0 {
			t.Fatalf("%d octets at %p", unsafe.Sizeof(*r), r)
		}
	}
}

// crowd is a database under change, and all that was ever in it.
type crowd struct {
	*DB
	made   map[*SA][]byte // key octets in place
	serial uint32
}

// crowdKeys are the keys of the SA with a serial number, kept in Spec.Seq.
func crowdKeys(s *Spec) (enc, auth []byte) {
	long := make([]byte, 52)
	for i := range long {
		long[i] = byte(i)*7 | 1
	}
	binary.BigEndian.PutUint32(long, s.Seq)
	if s.Enc == alg.AESGCM16 {
		return long[:20], nil
	}
	return long[:16], long[20:52]
}

// fresh makes an SA of one of a few SPIs, by turns of both kinds of cipher.
func (c *crowd) fresh(t *testing.T) *SA {
	c.serial++
	s := spec(256+rand.Uint32N(8), 1, 2)
	s.Seq = c.serial
	if c.serial%2 == 0 {
		s.Enc, s.Auth = alg.AESCBC, alg.HMACSHA2_256
	}
	s.EncKey, s.AuthKey = crowdKeys(&s)
	sa := newSA(t, s)
	c.made[sa] = sa.keys
	return sa
}

// change does one of what writers do.
func (c *crowd) change(t *testing.T) {
	sa := c.fresh(t)
	id := sa.spec.ID
	switch n := rand.IntN(20); {
	case n == 0:
		c.Flush(ProtoESP)
	case n < 6:
		c.Delete(id)
	case n < 11 && c.Add(sa) == nil, n >= 16 && c.Update(sa) == nil:
		return
	case n >= 11 && n < 16:
		c.Replace(sa)
		return
	}
	delete(c.made, sa) // never got in
}

// sealer is a worker, with what it may keep from one burst to the next.
type sealer struct {
	db         *DB
	scratch    crypto.Scratch
	sa         *SA
	generation uint64
}

// burst seals and checks the result under the key that the SA was made with.
func (w *sealer) burst(r *Reader) error {
	r.Enter()
	defer r.Leave()
	if g := w.db.Generation(); w.sa == nil || g != w.generation {
		w.generation, w.sa = g, w.find()
	}
	if w.sa == nil {
		return nil
	}
	for range rand.IntN(3) { // writers come in between
		runtime.Gosched()
	}
	s := w.sa.Spec()
	enc, auth := crowdKeys(s)
	peer, err := crypto.NewSuite(crypto.Keys{Enc: s.Enc, Auth: s.Auth, EncKey: enc, AuthKey: auth})
	if err != nil {
		return err
	}
	text := bytes.Repeat([]byte{byte(s.Seq)}, 32)
	esp := make([]byte, crypto.HeaderLen+peer.IVLen+len(text)+peer.ICVLen)
	copy(esp[crypto.HeaderLen+peer.IVLen:], text)
	w.sa.Suite.NewCipher().Seal(&w.scratch, esp, 0, 1)
	if !peer.NewCipher().Open(&w.scratch, esp, 0) || !bytes.Equal(esp[crypto.HeaderLen+peer.IVLen:][:len(text)], text) {
		return fmt.Errorf("SA %d: sealed under another key than its own", s.Seq)
	}
	return nil
}

func (w *sealer) find() *SA {
	src, dst := spec(256, 1, 2).Src.As16(), spec(256, 1, 2).Dst.As16()
	if rand.IntN(2) == 0 {
		return w.db.Outbound(ProtoESP, ModeTunnel, 0, &src, &dst)
	}
	return w.db.Lookup(256+rand.Uint32N(8), ProtoESP, &dst)
}

// Workers seal while SAs come and go, are dumped and reaped: nothing is ever
// sealed under octets that were zeroed, a dump shows the key or none, and in the
// end all octets of what was removed are zero. Run with -race.
func TestNoSealUnderZeroedKeys(t *testing.T) {
	c := crowd{DB: New(), made: map[*SA][]byte{}}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			w, r := sealer{db: c.DB}, c.NewReader()
			for n := 1; !stop.Load(); n++ {
				if err := w.burst(r); err != nil {
					t.Error(err)
					break
				}
				if n%100 == 0 { // workers come and go as well
					r.Close()
					r = c.NewReader()
				}
			}
			r.Close()
		})
	}
	wg.Go(func() {
		for !stop.Load() {
			for sa := range c.All() {
				enc, auth := sa.Keys()
				wantEnc, wantAuth := crowdKeys(sa.Spec())
				if enc != nil && !bytes.Equal(enc, wantEnc) || auth != nil && !bytes.Equal(auth, wantAuth) {
					t.Errorf("SA %d shows octets that are not its key", sa.Spec().Seq)
				}
			}
			c.Reap()
		}
	})
	for range 6000 {
		c.change(t)
		if rand.IntN(4) == 0 {
			runtime.Gosched()
		}
	}
	stop.Store(true)
	wg.Wait()
	if n := c.Reap(); n != 0 {
		t.Errorf("%d wait, and nobody is at work", n)
	}
	live := 0
	for sa, octets := range c.made {
		switch here := c.Get(sa.spec.ID) == sa; {
		case here:
			live++
			if enc, _ := crowdKeys(sa.Spec()); !bytes.HasPrefix(octets, enc) {
				t.Errorf("SA %d is there, and wiped", sa.spec.Seq)
			}
		case !zeroed(octets):
			t.Errorf("SA %d is gone, and its key is not: %x", sa.spec.Seq, octets)
		}
	}
	if live != c.Len() || len(c.made) < 2000 {
		t.Errorf("%d of %d are there, want %d", live, len(c.made), c.Len())
	}
}
