package sad

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"

	"ipsecd/crypto/alg"
)

// coldSpec is the i-th of many SAs that have one SPI, each to a peer and under a
// key of its own.
func coldSpec(i uint32) Spec {
	key := make([]byte, 36)
	binary.BigEndian.PutUint32(key, i)
	return Spec{
		ID:  ID{SPI: 0x1000, Proto: ProtoESP, Dst: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})},
		Src: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Mode: ModeTunnel, Replay: 64,
		Enc: alg.AESGCM16, EncKey: key,
	}
}

// heap is the octets that are in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// An SA that rests takes at most 600 octets of heap, all counted: its key, what
// is remembered of that, its places in both tables.
func TestColdSA(t *testing.T) {
	const n, most = 50000, 600
	before := heap()
	db := New()
	for i := range uint32(n) {
		added(t, db, coldSpec(i))
	}
	each := (heap() - before) / n
	t.Logf("%d octets each", each)
	if each > most {
		t.Errorf("%d octets for each SA, at most %d", each, most)
	}
	runtime.KeepAlive(db)
}
