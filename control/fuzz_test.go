package control

import (
	"net/netip"
	"testing"

	"ipsecd/crypto/alg"
	"ipsecd/pfkey"
	"ipsecd/sad"
	"ipsecd/spd"
)

// FuzzHandle: whatever comes in, in or out of a transaction, is answered with
// messages that the wire can express.
func FuzzHandle(f *testing.F) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	end := func(x netip.Addr) *pfkey.Address { return &pfkey.Address{Proto: 255, PrefixLen: 32, Addr: x} }
	add := pfkey.Message{
		Type: pfkey.ADD, SAType: pfkey.SATypeESP, SA: &pfkey.SA{SPI: 4096, Enc: alg.AESGCM16},
		Src: end(a), Dst: end(b), EncKey: &pfkey.Key{Bits: 160, Data: make([]byte, 20)},
		NATT: &pfkey.NATT{Type: pfkey.TypeNATT, SrcPort: 4500, DstPort: 4500},
	}
	policy := pfkey.Message{
		Type: pfkey.SPDADD, Src: end(a), Dst: end(b),
		Policy: &pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut, Requests: []pfkey.Request{
			{Proto: 50, Mode: pfkey.ModeTunnel, Level: pfkey.LevelUnique, Src: a, Dst: b}}},
	}
	null := add
	null.SA = &pfkey.SA{SPI: 4096, Enc: alg.NullEnc, Auth: alg.HMACSHA1, Flags: pfkey.FlagESN | pfkey.FlagPadZero}
	null.SA2 = &pfkey.SA2{Mode: pfkey.ModeTransport}
	null.EncKey, null.AuthKey = &pfkey.Key{}, &pfkey.Key{Bits: 160, Data: make([]byte, 20)}
	move := add
	move.SA, move.EncKey, move.OAI = &pfkey.SA{SPI: 4096}, nil, end(a)
	transport := policy
	transport.Policy = &pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut, ID: 1, Requests: []pfkey.Request{
		{Proto: 50, Mode: pfkey.ModeTransport, Src: a, Dst: b}}}
	for typ := range handlers {
		for _, m := range []pfkey.Message{add, null, move, policy, transport, {}} {
			m.Type = typ
			wire, err := m.Append(nil)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(wire)
		}
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		e := New(Config{SAD: sad.New(), SPD: spd.New(), NATTPort: 4500})
		var s Session
		script := []*pfkey.Message{&add, &policy, {Type: pfkey.BEGIN}, nil, {Type: pfkey.COMMIT}, nil}
		for _, m := range script {
			answers := e.answerBytes(&s, wire)
			if m != nil {
				answers = e.answer(&s, m)
			}
			n := 0
			for r := range answers {
				n++
				if _, err := r.Append(nil); err != nil {
					t.Fatalf("%+v: %v", r, err)
				}
			}
			if n == 0 {
				t.Fatal("no answer")
			}
		}
	})
}
