package pfkey_test

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ipsecd/pfkey"
)

// TestDecodeNetBSD reads what a NetBSD kernel was asked, and answered, on a
// little-endian host. Its IPv4 messages have FreeBSD's layout; the extensions come in
// another order than ours.
func TestDecodeNetBSD(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the messages are in little-endian order")
	}
	const (
		sa2       = "02001300 01000000 00000000 00000000"
		ends      = "03000500 00200000 10020000 0a000001 00000000 00000000 03000600 00200000 10020000 0a000002 00000000 00000000"
		udp       = "03000500 11200000 10020000 0a000001 00000000 00000000 03000600 11200000 10020000 0a000002 00000000 00000000"
		lifetimes = "04000300 00000000 00000000 00000000 64000000 00000000 00000000 00000000" +
			"04000400 00000000 00000000 00000000 50000000 00000000 00000000 00000000"
	)
	end := func(proto uint8, addr string) *pfkey.Address {
		return &pfkey.Address{Proto: proto, PrefixLen: 32, Addr: netip.MustParseAddr(addr)}
	}
	key := func(n int) *pfkey.Key {
		k := pfkey.Key{Bits: uint16(8 * n)}
		for i := range n {
			k.Data = append(k.Data, byte(i))
		}
		return &k
	}
	update := func(seq uint32) pfkey.Message {
		return pfkey.Message{
			Type: pfkey.UPDATE, SAType: pfkey.SATypeESP, Seq: seq, PID: 4242,
			SA:  &pfkey.SA{SPI: 0x2000, Replay: 4, State: pfkey.StateMature, Auth: 3, Enc: 12, Flags: pfkey.FlagCycSeq},
			SA2: &pfkey.SA2{Mode: pfkey.ModeTransport}, Src: end(0, "10.0.0.1"), Dst: end(0, "10.0.0.2"),
			Hard: &pfkey.Lifetime{AddTime: 100}, Soft: &pfkey.Lifetime{AddTime: 80},
		}
	}
	asked := update(109)
	asked.AuthKey, asked.EncKey = key(20), key(16)
	spdupdate := func(id uint32) pfkey.Message {
		return pfkey.Message{
			Type: pfkey.SPDUPDATE, Seq: 149, PID: 4242, Src: end(17, "10.0.0.1"), Dst: end(17, "10.0.0.2"),
			Policy: &pfkey.Policy{Dir: pfkey.DirOut, ID: id},
		}
	}
	spdget := pfkey.Message{Type: pfkey.SPDGET, Seq: 151, PID: 4242, Policy: &pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut, ID: 1}}
	refused := spdget
	refused.Errno = 2
	tests := []struct {
		name, hex string
		want      pfkey.Message
	}{
		{"update", "02020003 1b000000 6d000000 92100000 02000100 00002000 0401030c 40000000" + sa2 + ends +
			"04000800 a0000000 00010203 04050607 08090a0b 0c0d0e0f 10111213 00000000" +
			"03000900 80000000 00010203 04050607 08090a0b 0c0d0e0f" + lifetimes, asked},
		{"update answered", "02020003 14000000 6d000000 92100000 02000100 00002000 0401030c 40000000" + sa2 + ends + lifetimes, update(109)},
		{"spdupdate", "020d0000 0a000000 95000000 92100000" + udp + "02001200 00000200 00000000 00000000", spdupdate(0)},
		{"spdupdate answered", "020d0000 0a000000 95000000 92100000 02001200 00000200 46000000 00000000" + udp, spdupdate(70)},
		{"spdget", "02100000 04000000 97000000 92100000 02001200 02000200 01000000 00000000", spdget},
		{"spdget refused", "02100200 04000000 97000000 92100000 02001200 02000200 01000000 00000000", refused},
	}
	for _, tt := range tests {
		b, err := hex.DecodeString(strings.ReplaceAll(tt.hex, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		got, err := pfkey.Decode(b)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		sameAddr := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
		if d := cmp.Diff(&tt.want, got, sameAddr); d != "" {
			t.Errorf("%s, want - got +:\n%s", tt.name, d)
		}
	}
}
