package xform

import (
	"bytes"
	"fmt"
	"testing"

	"ipsecd/sad"
)

// SAs of one set of the cipher cache, one more than it holds, push each other
// out, and each packet still opens under its own.
func TestCipherSet(t *testing.T) {
	w, pkt := NewWorker(0), inner{size: 30}.build(t)
	var sas []*sad.SA
	for spi := uint32(0x1000); len(sas) <= cipherWays; spi++ {
		s := specOf(false, false, cbc)
		s.SPI, s.EncKey = spi, []byte(fmt.Sprintf("key%013d", spi))
		if sa := newSA(t, s); len(sas) == 0 || w.set(sa) == w.set(sas[0]) {
			sas = append(sas, sa)
		}
	}
	for range 3 {
		for _, sa := range sas {
			p := bytes.Clone(sealAll(t, w, sa, sa.Reserve(1), lone(t, pkt))[0])
			for _, at := range []*Worker{w, NewWorker(0)} {
				if !bytes.Equal(open(t, at, sa, p), pkt) {
					t.Fatal("opens to something else")
				}
			}
		}
	}
}

// SPIs in round steps, as people count them, keep their ciphers beside each other.
func TestCipherCacheHoldsRoundSPIs(t *testing.T) {
	for _, step := range []uint32{1, 0x10, 0x100, 0x1000, 0x10000, 10000} {
		w := NewWorker(0)
		var sas []*sad.SA
		for i := range uint32(8) {
			s := specOf(false, false, cbc)
			s.SPI = 0x1000 + i*step
			sas = append(sas, newSA(t, s))
		}
		all := func() {
			for _, sa := range sas {
				w.cipher(sa)
			}
		}
		if n := testing.AllocsPerRun(10, all); n != 0 {
			t.Errorf("steps of %#x: %v allocations", step, n)
		}
	}
}

// Forget drops the ciphers of SAs that are gone, and of these alone.
func TestForget(t *testing.T) {
	one, two := specOf(false, false, cbc), specOf(false, false, cbc)
	two.SPI++
	db := sad.New()
	gone, err := sad.NewSA(one)
	if err != nil {
		t.Fatal(err)
	}
	stays, err := sad.NewSA(two)
	if err != nil {
		t.Fatal(err)
	}
	for _, sa := range []*sad.SA{gone, stays} {
		if err := db.Add(sa); err != nil {
			t.Fatal(err)
		}
	}
	w := NewWorker(0)
	w.cipher(gone)
	kept := w.cipher(stays)
	if _, err := db.Delete(gone.Spec().ID); err != nil {
		t.Fatal(err)
	}
	w.Forget()
	for _, set := range w.ciphers {
		for _, slot := range set {
			if slot.sa == gone || slot.sa == nil && slot.c != nil {
				t.Error("the cipher of an SA that is gone")
			}
		}
	}
	if w.cipher(stays) != kept {
		t.Error("the other's was dropped as well")
	}
}
