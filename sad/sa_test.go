package sad

import (
	"bytes"
	"errors"
	"math"
	"net/netip"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ipsecd/crypto"
	"ipsecd/crypto/alg"
	"ipsecd/packet"
	"ipsecd/sad/replay"
)

func TestNewSARefuses(t *testing.T) {
	v6 := netip.MustParseAddr("2001:db8::1")
	tests := []struct {
		name   string
		change func(*Spec)
		want   string
		is     error
	}{
		{"AH", func(s *Spec) { s.Proto = ProtoAH }, "invalid SA: protocol 51; 50 (ESP) is the one supported", ErrSpec},
		{"no protocol", func(s *Spec) { s.Proto = 0 }, "invalid SA: protocol 0; 50 (ESP) is the one supported", ErrSpec},
		{"SPI 0", func(s *Spec) { s.SPI = 0 }, "invalid SA: SPI 0 is reserved; 256 to 4294967295 are free to use", ErrSpec},
		{"SPI 255", func(s *Spec) { s.SPI = 255 }, "invalid SA: SPI 255 is reserved; 256 to 4294967295 are free to use", ErrSpec},
		{"two families", func(s *Spec) { s.Src = v6 }, "invalid SA: source and destination must be addresses of one family", ErrSpec},
		{"no source", func(s *Spec) { s.Src = netip.Addr{} }, "invalid SA: source and destination must be addresses of one family", ErrSpec},
		{"no destination", func(s *Spec) { s.Dst = netip.Addr{} }, "invalid SA: source and destination must be addresses of one family", ErrSpec},
		{"one port", func(s *Spec) { s.Encap.SrcPort = 4500 }, "invalid SA: UDP encapsulation needs both ports", ErrSpec},
		{"the other port", func(s *Spec) { s.Encap.DstPort = 4500 }, "invalid SA: UDP encapsulation needs both ports", ErrSpec},
		{"cipher", func(s *Spec) { s.Enc = 3 }, "encryption algorithm 3: not supported", crypto.ErrUnsupported},
		{"key", func(s *Spec) { s.EncKey = s.EncKey[:16] },
			"aes-gcm-16 takes a key of 160, 224 or 288 bits, not 128: the last 32 bits are the salt", nil},
		{"window", func(s *Spec) { s.Replay = replay.MaxSize + 1 }, replay.ErrSize.Error(), replay.ErrSize},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := spec(256, 1, 2)
			tt.change(&s)
			sa, err := NewSA(s)
			if err == nil || sa != nil {
				t.Fatal("taken")
			}
			if err.Error() != tt.want || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestNewSATakes(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"lowest SPI":  func(s *Spec) { s.SPI = 256 },
		"highest SPI": func(s *Spec) { s.SPI = math.MaxUint32 },
		"no window":   func(s *Spec) { s.Replay = 0 },
		"widest":      func(s *Spec) { s.Replay = replay.MaxSize },
		"encap":       func(s *Spec) { s.Encap = Encap{4500, 4500} },
		"ESN":         func(s *Spec) { s.ESN = true },
		"padding":     func(s *Spec) { s.Pad = PadZero },
		"lifetimes":   func(s *Spec) { s.Hard, s.Soft = &Lifetime{Bytes: 9}, &Lifetime{Bytes: 8} },
		"null cipher": func(s *Spec) {
			s.Enc, s.EncKey, s.Auth, s.AuthKey = alg.NullEnc, nil, alg.HMACSHA2_256, make([]byte, 32)
		},
		"IPv6": func(s *Spec) {
			s.Src, s.Dst = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
		},
		"cbc": func(s *Spec) {
			s.Enc, s.EncKey, s.Auth, s.AuthKey = alg.AESCBC, make([]byte, 16), alg.HMACSHA2_256, make([]byte, 32)
		},
	} {
		s := spec(300, 1, 2)
		change(&s)
		sa, err := NewSA(s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if sa.Window.Size() != s.Replay || sa.Src != s.Src.As16() || sa.Dst != s.Dst.As16() || sa.Usage() != (Usage{}) {
			t.Errorf("%s: %+v", name, sa.Usage())
		}
		want := s
		want.EncKey, want.AuthKey = nil, nil
		if diff := cmp.Diff(&want, sa.Spec(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Errorf("%s: Spec differs (-want +got):\n%s", name, diff)
		}
	}
}

// The SA keeps its own copy of the keys, which is not in its Spec, and hands out
// copies.
func TestKeysAreCopied(t *testing.T) {
	s := spec(256, 1, 2)
	s.Enc, s.EncKey, s.Auth, s.AuthKey = alg.AESCBC, s.EncKey[:16], alg.HMACSHA2_256, bytes.Repeat([]byte{7}, 32)
	sa := newSA(t, s)
	enc, auth := bytes.Clone(s.EncKey), bytes.Clone(s.AuthKey)
	clear(s.EncKey)
	clear(s.AuthKey)
	for range 2 {
		e, a := sa.Keys()
		if !bytes.Equal(e, enc) || !bytes.Equal(a, auth) {
			t.Fatal("the keys changed with a copy")
		}
		clear(e)
		clear(a)
	}
	if sa.Spec().EncKey != nil || sa.Spec().AuthKey != nil {
		t.Error("the keys are in the Spec")
	}
	if enc, auth := newSA(t, spec(256, 1, 2)).Keys(); len(enc) != 20 || auth != nil {
		t.Errorf("%d octets and %v of a cipher that authenticates by itself", len(enc), auth)
	}
}

// added returns an SA of db.
func added(t fataler, db *DB, s Spec) *SA {
	t.Helper()
	sa := newSA(t, s)
	if err := db.Add(sa); err != nil {
		t.Fatalf("%v", err)
	}
	return sa
}

func TestCountAndUsage(t *testing.T) {
	sa := added(t, New(), spec(256, 1, 2))
	sa.Count(3, 300, 1000)
	sa.Count(1, 50, 1005)
	sa.Count(1, 50, 1005)
	sa.Window.Accept(77)
	want := Usage{Seq: 77, Packets: 5, Bytes: 400, FirstUse: 1000, LastUse: 1005}
	if got := sa.Usage(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// What an SA dropped is counted under it; one that dropped nothing has no
// counters.
func TestDrops(t *testing.T) {
	sa := newSA(t, spec(256, 1, 2))
	sa.Drop(packet.Kept, 3)
	sa.Drop(packet.Replayed, 0)
	if sa.Drops() != nil {
		t.Error("counters for nothing")
	}
	// The first drops of two workers at once: the one behind catches up with the
	// one that allocates, again and again.
	sas := make([]SA, 20000)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := range sas {
				sas[i].Drop(packet.Replayed, 2)
				sas[i].Drop(packet.BadICV, 1)
			}
		})
	}
	wg.Wait()
	for i := range sas {
		if d := sas[i].Drops(); d.Get(packet.Replayed) != 4 || d.Get(packet.BadICV) != 2 {
			t.Fatalf("%d replayed, %d bad", d.Get(packet.Replayed), d.Get(packet.BadICV))
		}
	}
}
