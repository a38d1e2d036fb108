package sad

import (
	"bytes"
	"errors"
	"math"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"ipsecd/crypto"
	"ipsecd/crypto/alg"
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
	}
}

// The SA keeps its own copy of the keys.
func TestNewSACopiesKeys(t *testing.T) {
	s := spec(256, 1, 2)
	sa := newSA(t, s)
	want := bytes.Clone(s.EncKey)
	clear(s.EncKey)
	if !bytes.Equal(sa.Spec().EncKey, want) {
		t.Error("the key changed with the caller's")
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

// RFC 4303 3.3.3: numbers begin at 1 and end at 2^32-1.
func TestReserve(t *testing.T) {
	sa := added(t, New(), spec(256, 1, 2))
	first := sa.Reserve(5)
	second := sa.Reserve(1)
	if first.Seq != 1 || first.N != 5 || second.Seq != 6 || second.N != 1 || second.IV != first.IV+5 {
		t.Errorf("got %+v, then %+v", first, second)
	}
	if g := sa.Reserve(0); g != (Grant{}) {
		t.Errorf("none asked for: %+v", g)
	}
	sa.seq.Store(maxSeq - 3)
	if g := sa.Reserve(2); g.Seq != maxSeq-2 || g.N != 2 {
		t.Errorf("near the end: %+v", g)
	}
	if g := sa.Reserve(64); g.Seq != math.MaxUint32 || g.N != 1 {
		t.Errorf("across the end: %+v", g)
	}
	for range 3 {
		if g := sa.Reserve(64); g != (Grant{}) {
			t.Errorf("behind the end: %+v", g)
		}
	}
	if u := sa.Usage(); u.Seq != math.MaxUint32 {
		t.Errorf("used up to %d", u.Seq)
	}
}

// Grants of several goroutines never overlap, in numbers or IVs, and are all
// numbers up to the last.
func TestReserveConcurrently(t *testing.T) {
	sa := added(t, New(), spec(256, 1, 2))
	const begin = maxSeq - 2000000
	sa.seq.Store(begin)
	var mu sync.Mutex
	var grants []Grant
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var own []Grant
			for n := 1; ; n = n%7 + 1 {
				g := sa.Reserve(n)
				if g.N == 0 {
					break
				}
				own = append(own, g)
			}
			mu.Lock()
			defer mu.Unlock()
			grants = append(grants, own...)
		})
	}
	wg.Wait()
	slices.SortFunc(grants, func(a, b Grant) int { return int(int64(a.Seq) - int64(b.Seq)) })
	next := uint64(begin + 1)
	for _, g := range grants {
		if g.Seq != next {
			t.Fatalf("number %d is granted after %d", g.Seq, next-1)
		}
		next += uint64(g.N)
	}
	if next != math.MaxUint32+1 {
		t.Errorf("ends at %d", next-1)
	}
	slices.SortFunc(grants, func(a, b Grant) int { return int(int64(a.IV) - int64(b.IV)) })
	for i, g := range grants[1:] {
		if g.IV < grants[i].IV+uint64(grants[i].N) {
			t.Fatalf("IV %d is granted twice", g.IV)
		}
	}
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
