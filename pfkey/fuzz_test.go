package pfkey_test

import (
	"net/netip"
	"reflect"
	"testing"

	"ipsecd/pfkey"
)

// FuzzDecode: Decode never panics, and what it accepts comes back from the
// wire as it was.
func FuzzDecode(f *testing.F) {
	v4 := &pfkey.Address{Proto: 255, PrefixLen: 32, Addr: netip.MustParseAddr("192.0.2.1")}
	v6 := &pfkey.Address{Proto: 6, PrefixLen: 64, Addr: netip.MustParseAddr("fd00::1"), Port: 80}
	for _, m := range []pfkey.Message{
		{Type: pfkey.COMMIT},
		{Type: pfkey.ADD, SAType: pfkey.SATypeESP, SA: &pfkey.SA{SPI: 4096, Enc: 12}, SA2: &pfkey.SA2{Mode: 2},
			Src: v4, Dst: v4, EncKey: &pfkey.Key{Bits: 128, Data: make([]byte, 16)}, NATT: &pfkey.NATT{Type: 2, SrcPort: 4500}},
		{Type: pfkey.SPDADD, Src: v6, Dst: v6, Policy: &pfkey.Policy{Type: 2, Dir: 1, Requests: []pfkey.Request{
			{Proto: 50, Mode: 1}, {Proto: 50, Mode: 2, Src: v4.Addr, Dst: v4.Addr}}}},
		{Type: pfkey.UPDATE, SAType: pfkey.SATypeESP, SA: &pfkey.SA{SPI: 4096, Enc: 11, Auth: 3, Flags: pfkey.FlagESN | pfkey.FlagPadZero},
			SA2: &pfkey.SA2{Mode: 1}, Src: v4, Dst: v4, EncKey: &pfkey.Key{Data: []byte{}}, AuthKey: &pfkey.Key{Bits: 160, Data: make([]byte, 20)}},
		{Type: pfkey.SPDUPDATE, Src: v4, Dst: v4, Policy: &pfkey.Policy{Type: 2, Dir: 2, Requests: []pfkey.Request{
			{Proto: 50, Mode: 2, Level: 3, Reqid: 16384, Src: v6.Addr, Dst: v6.Addr}}}},
		{Type: pfkey.SPDGET, Policy: &pfkey.Policy{ID: 7}},
		{Type: pfkey.REGISTER, SupEnc: []pfkey.SupportedAlg{{ID: 12}}, Text: "text"},
	} {
		b, err := m.Append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		pfkey.DecodeHeader(b)
		m, err := pfkey.Decode(b)
		if err != nil {
			return
		}
		again, err := m.Append(nil)
		if err != nil {
			t.Fatalf("%v of %+v", err, m)
		}
		got, err := pfkey.Decode(again)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, m) {
			t.Fatalf("got %+v, want %+v", got, m)
		}
	})
}
