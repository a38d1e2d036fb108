package dataplane_test

import (
	"math/rand/v2"
	"testing"

	"ipsecd/dataplane"
)

// What InnerMTU allows fits, and one octet more does not.
func TestInnerMTU(t *testing.T) {
	for _, w := range ways() {
		sa := w.newSA(t, 0, 64)
		for mtu := 1280; mtu < 1320; mtu++ {
			inner := dataplane.InnerMTU(sa, mtu)
			f := talk{way: &w, udp: true, port: 1}
			b, _ := f.say(t, rand.New(rand.NewPCG(1, 2)), 1, 1000, 0, tcpFlags{})
			front := b.PacketLen(0) - 1000
			for more := range 2 {
				b, _ := f.say(t, rand.New(rand.NewPCG(1, 2)), 1, inner-front+more, 0, tcpFlags{})
				if n := len(w.end(t, 0, 64).seal(t, b)[0]); n > mtu != (more > 0) {
					t.Fatalf("%v: a packet of %d octets seals to %d, MTU %d", &w, inner+more, n, mtu)
				}
			}
		}
	}
}
