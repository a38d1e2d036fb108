package e2e

import (
	"testing"
	"time"
)

// A counter-mode cipher must not see an IV twice under one key: not when the
// same file is loaded a thousand times on both hosts under traffic, not when an
// ipsecd is killed on the way, and not when both directions have one key.
func TestNoIVTwice(t *testing.T) {
	reloads, kills := 1000, 20
	if raceDetector { // which takes its time to start
		reloads, kills = 100, 5
	}
	a, b := newPair(t)
	tun := tunnels[0]
	text := func(end string) string {
		// -r 0: each side goes on though the other was killed.
		return `
flush; spdflush;
add 198.51.100.1 198.51.100.2 esp 0xa001 -m tunnel -u 1 -r 0 -E aes-gcm-16 0x6b87c452e0602b13e1925c2962e635ad7b9d3f01;
add 198.51.100.2 198.51.100.1 esp 0xb001 -m tunnel -u 1 -r 0 -E aes-gcm-16 0x6b87c452e0602b13e1925c2962e635ad7b9d3f01;
` + policies(end, tun)
	}
	wire := listen(t, a)
	start := func(h *host, end string) string {
		f := h.file("setkey.conf", text(end))
		h.start(append(addrs(end, tun), "-f", f)...)
		return f
	}
	fileA, fileB := start(a, "A"), start(b, "B")
	chatter(t, a, b, tun.innerA, tun.innerB, 200*time.Microsecond)
	for i := range reloads {
		a.mustSetkey("-f", fileA)
		b.mustSetkey("-f", fileB)
		if i%(reloads/kills) == 0 {
			victim, end := a, "A"
			if i/(reloads/kills)%2 == 1 {
				victim, end = b, "B"
			}
			victim.kill()
			start(victim, end)
		}
	}
	seen := map[uint64]*esp{} // by IV: both SAs have one key
	packets := 0
	senders := map[uint32]int{}
	for _, f := range wire.stop() {
		e, _ := dissect(f) // besides, the kernel of a killed ipsecd says "protocol unreachable"
		if e == nil {
			continue
		}
		packets++
		senders[e.spi]++
		if first := seen[e.iv]; first != nil {
			t.Fatalf("IV %#x of SPI %#x seq %d came before with SPI %#x seq %d", e.iv, e.spi, e.seq, first.spi, first.seq)
		}
		seen[e.iv] = e
	}
	if len(senders) != 2 || packets < 2*reloads {
		t.Errorf("%d packets of SPIs %v are too few to show anything", packets, senders)
	}
}
