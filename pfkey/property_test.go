package pfkey_test

import (
	"net/netip"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"ipsecd/pfkey"
)

func addr4(t *rapid.T) netip.Addr {
	return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "v4")))
}

func addr6(t *rapid.T) netip.Addr {
	return netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "v6")))
}

// maybe draws nil or a value of f.
func maybe[T any](t *rapid.T, f func(*rapid.T) T) *T {
	if !rapid.Bool().Draw(t, "present") {
		return nil
	}
	v := f(t)
	return &v
}

func address(t *rapid.T) pfkey.Address {
	a := pfkey.Address{
		Proto:     rapid.Uint8().Draw(t, "proto"),
		PrefixLen: rapid.Uint8().Draw(t, "prefix"),
		Port:      rapid.Uint16().Draw(t, "port"),
		Addr:      addr4(t),
	}
	if rapid.Bool().Draw(t, "is6") {
		a.Addr = addr6(t)
	}
	return a
}

func key(t *rapid.T) pfkey.Key {
	bits := rapid.Uint16().Draw(t, "bits")
	n := (int(bits) + 7) / 8
	return pfkey.Key{Bits: bits, Data: rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "key")}
}

func request(t *rapid.T) pfkey.Request {
	r := pfkey.Request{
		Proto: rapid.Uint16().Draw(t, "proto"),
		Mode:  rapid.Uint8().Draw(t, "mode"),
		Level: rapid.Uint8().Draw(t, "level"),
		Reqid: uint32(rapid.Uint16().Draw(t, "reqid")),
	}
	switch rapid.IntRange(0, 2).Draw(t, "ends") {
	case 1:
		r.Src, r.Dst = addr4(t), addr4(t)
	case 2:
		r.Src, r.Dst = addr6(t), addr6(t)
	}
	return r
}

func policy(t *rapid.T) pfkey.Policy {
	p := pfkey.Policy{
		Type:     rapid.Uint16().Draw(t, "type"),
		Dir:      rapid.Uint8().Draw(t, "dir"),
		ID:       rapid.Uint32().Draw(t, "id"),
		Priority: rapid.Uint32().Draw(t, "priority"),
	}
	for range rapid.IntRange(0, 4).Draw(t, "requests") {
		p.Requests = append(p.Requests, request(t))
	}
	return p
}

// draw is rapid.Make as a function of maybe.
func draw[T any](t *rapid.T) T { return rapid.Make[T]().Draw(t, "value") }

func algorithms(t *rapid.T) []pfkey.SupportedAlg {
	if !rapid.Bool().Draw(t, "present") {
		return nil
	}
	return rapid.SliceOfN(rapid.Make[pfkey.SupportedAlg](), 0, 5).Draw(t, "algorithms")
}

// message draws any message that the wire can express.
func message(t *rapid.T) *pfkey.Message {
	return &pfkey.Message{
		Type:     rapid.Uint8().Draw(t, "type"),
		Errno:    rapid.Uint8().Draw(t, "errno"),
		SAType:   rapid.Uint8().Draw(t, "satype"),
		Reserved: rapid.Uint16().Draw(t, "reserved"),
		Seq:      rapid.Uint32().Draw(t, "seq"),
		PID:      rapid.Uint32().Draw(t, "pid"),
		SA:       maybe(t, draw[pfkey.SA]),
		SA2:      maybe(t, draw[pfkey.SA2]),
		Current:  maybe(t, draw[pfkey.Lifetime]),
		Hard:     maybe(t, draw[pfkey.Lifetime]),
		Soft:     maybe(t, draw[pfkey.Lifetime]),
		Src:      maybe(t, address),
		Dst:      maybe(t, address),
		AuthKey:  maybe(t, key),
		EncKey:   maybe(t, key),
		Policy:   maybe(t, policy),
		NATT:     maybe(t, draw[pfkey.NATT]),
		OAI:      maybe(t, address),
		OAR:      maybe(t, address),
		Replay:   maybe(t, draw[uint32]),
		SupAuth:  algorithms(t),
		SupEnc:   algorithms(t),
		Text:     rapid.StringMatching(`[a-zé ]{0,60}`).Draw(t, "text"),
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := message(t)
		b, err := m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pfkey.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, m) {
			t.Fatalf("got %+v, want %+v", got, m)
		}
	})
}
