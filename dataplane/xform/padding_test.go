package xform

import (
	"bytes"
	"testing"

	"ipsecd/packet"
	"ipsecd/sad"
)

// What padding holds is what the SA says; the length and what follows are right
// whatever it is.
func TestPaddingKinds(t *testing.T) {
	pads := map[sad.Padding][][]byte{}
	for _, kind := range []sad.Padding{sad.PadSequential, sad.PadRandom, sad.PadZero} {
		s := specOf(false, false, null)
		s.Pad = kind
		sa, w := newSA(t, s), NewWorker(0)
		for range 2 {
			pkt := inner{size: 3}.build(t) // 43 octets: 3 of padding
			esp := decodeOuter(t, sealAll(t, w, sa, sa.Reserve(1), lone(t, pkt))[0]).esp
			trailer := esp[8+len(pkt) : len(esp)-sa.Suite.ICVLen]
			if len(trailer) != 5 || trailer[3] != 3 || trailer[4] != 4 {
				t.Fatalf("trailer %x", trailer)
			}
			pads[kind] = append(pads[kind], trailer[:3])
		}
	}
	for kind, want := range map[sad.Padding][]byte{sad.PadSequential: {1, 2, 3}, sad.PadZero: {0, 0, 0}} {
		if !bytes.Equal(pads[kind][0], want) || !bytes.Equal(pads[kind][1], want) {
			t.Errorf("kind %d: %x, want %x", kind, pads[kind], want)
		}
	}
	if bytes.Equal(pads[sad.PadRandom][0], pads[sad.PadRandom][1]) {
		t.Errorf("random padding twice %x", pads[sad.PadRandom][0])
	}
}

// Padding is written, whatever the room held before: octets of an earlier packet do
// not travel in it.
func TestPaddingCoversTheRoom(t *testing.T) {
	for kind, want := range map[sad.Padding][]byte{sad.PadSequential: {1, 2, 3}, sad.PadZero: {0, 0, 0}} {
		s := specOf(false, false, null)
		s.Pad = kind
		sa, w, room := newSA(t, s), NewWorker(0), packet.NewTrain(2000)
		copy(room.Next(2000), bytes.Repeat([]byte{0xee}, 2000))
		room.Reset()
		b := lone(t, inner{size: 3}.build(t))
		if w.SealESP(sa, sad.ModeTunnel, sa.Reserve(1), b, 0, room) != 1 {
			t.Fatal("not sealed")
		}
		esp := decodeOuter(t, room.Pkts[0]).esp
		if pad := esp[8+43:][:3]; !bytes.Equal(pad, want) {
			t.Errorf("kind %d: %x, want %x", kind, pad, want)
		}
	}
	s := specOf(false, false, null)
	s.Pad = sad.PadRandom
	sa, w, room := newSA(t, s), NewWorker(0), packet.NewTrain(2000)
	b := lone(t, inner{size: 3}.build(t))
	stale := 0
	for range 4 {
		room.Reset()
		copy(room.Next(2000), bytes.Repeat([]byte{0xee}, 2000))
		room.Reset()
		w.SealESP(sa, sad.ModeTunnel, sa.Reserve(1), b, 0, room)
		if bytes.Equal(decodeOuter(t, room.Pkts[0]).esp[8+43:][:3], []byte{0xee, 0xee, 0xee}) {
			stale++
		}
	}
	if stale > 1 {
		t.Errorf("random padding is what lay there %d times of 4", stale)
	}
}
