package dataplane

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"ipsecd/packet"
	"ipsecd/sad"
)

// Between bursts a worker holds no SA: what was deleted is wiped at once, and a
// stateful cipher goes with the next burst.
func TestWorkersLetGo(t *testing.T) {
	w := newHandDriven(t)
	for _, third := range []byte{1, 2} {
		b := lone(datagramFrom(third, 30))
		w.in.handle(&b)
		w.out.handle([]packet.Burst{lone(bytes.Clone(w.wire.last[:w.wire.len]))})
	}
	cbc := w.SAD.Get(sad.ID{SPI: 0x1002, Proto: sad.ProtoESP, Dst: near192(2)})
	w.load(t, "delete 192.0.2.1 192.0.2.2 esp 0x1002;")
	if n := w.SAD.Reap(); n != 0 {
		t.Errorf("%d SAs wait still, and no worker is at work", n)
	}
	if enc, auth := cbc.Keys(); enc != nil || auth != nil {
		t.Error("the keys are there still")
	}
}

// A policy comes and goes at full load, a thousand times, another one that discards
// behind it: each worker obeys what there is, nothing passes in clear, and a worker
// that found no policy does not go on so.
func TestPolicyDeathUnderLoad(t *testing.T) {
	const protect = "spdadd 10.1.1.0/24 10.2.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:1;"
	const unprotect = "spddelete 10.1.1.0/24 10.2.0.0/24 any -P out;"
	w := newHandDriven(t)
	w.load(t, unprotect+protect+"spdadd 10.0.0.0/8 10.0.0.0/8 any -P out discard;")
	var closed atomic.Bool
	var workers sync.WaitGroup
	var engines [2]*Engine // one a worker, so that each has its own counters
	var sealed, clear [2]counting
	for i := range engines {
		e := New(w.Config)
		f := &flood{pkt: datagramFrom(1, 100), buf: make([]byte, 256), closed: &closed}
		in := e.NewInside(f, Wires{Raw4: countingWire{to: &sealed[i]}, Bypass4: countingWire{to: &clear[i]}})
		engines[i] = e
		workers.Go(func() { in.Run() })
	}
	for range 1000 {
		w.load(t, unprotect)
		for _, e := range engines { // a stale policy would be waited for in vain
			n := e.Drops.Get(packet.PolicyDiscard)
			waitFor(t, func() bool { return e.Drops.Get(packet.PolicyDiscard) >= n+2 })
		}
		// In front again: the one that discards goes behind it in the same commit.
		w.load(t, protect+"spddelete 10.0.0.0/8 10.0.0.0/8 any -P out; spdadd 10.0.0.0/8 10.0.0.0/8 any -P out discard;")
	}
	closed.Store(true)
	workers.Wait()
	for i, e := range engines {
		if sealed[i].n == 0 || clear[i].n != 0 {
			t.Errorf("%d sealed, %d in clear", sealed[i].n, clear[i].n)
		}
		for d, n := range e.Drops.All() {
			if d != packet.PolicyDiscard {
				t.Errorf("%d dropped as %v", n, d)
			}
		}
	}
}

// SAs die under what arrives: each packet comes through or finds no SA, and none is
// opened under octets of a key that were zeroed.
func TestInboundSADeathUnderLoad(t *testing.T) {
	for third, sa := range map[byte]string{
		1: "0x1001 -m tunnel -u 1 -r 0 -E aes-gcm-16 0x6b87c452e0602b13e1925c2962e635ad7b9d3f7b;",
		2: "0x1002 -m tunnel -u 2 -r 0 -E aes-cbc 0x73bb90ac97e947c7bbc0f55c6b3e17bd -A hmac-sha2-256 0x6734dc7dbbcdb6256bbac5ea53d3a259aca9e3e10562873837e36c56dc8ec1be;",
	} {
		w := newHandDriven(t)
		spi := fmt.Sprintf("%#x", 0x1000+int(third))
		remove := "delete 192.0.2.1 192.0.2.2 esp " + spi + ";"
		w.load(t, remove+"add 192.0.2.1 192.0.2.2 esp "+sa)
		b := lone(datagramFrom(third, 100))
		w.in.handle(&b)
		sealed := bytes.Clone(w.wire.last[:w.wire.len])
		var closed atomic.Bool
		var workers sync.WaitGroup
		var hosts [2]counting
		var handled [2]int
		for i := range hosts {
			out := w.NewOutside(nil, countingHost{to: &hosts[i]})
			workers.Go(func() {
				defer out.sas.Close()
				buf := make([]byte, len(sealed))
				for ; !closed.Load(); handled[i]++ {
					copy(buf, sealed)
					out.handle([]packet.Burst{lone(buf)})
					runtime.Gosched()
				}
			})
		}
		for range 1000 {
			w.load(t, remove)
			n := w.Drops.Get(packet.UnknownSPI)
			waitFor(t, func() bool { return w.Drops.Get(packet.UnknownSPI) >= n+3 })
			w.load(t, "add 192.0.2.1 192.0.2.2 esp "+sa)
			live := w.SAD.Get(sad.ID{SPI: 0x1000 + uint32(third), Proto: sad.ProtoESP, Dst: near192(2)})
			waitFor(t, func() bool { return live.Usage().Packets > 0 })
		}
		closed.Store(true)
		workers.Wait()
		if n := w.SAD.Reap(); n != 0 {
			t.Errorf("%d SAs wait still, and nobody works", n)
		}
		if in, out := handled[0]+handled[1], hosts[0].n+hosts[1].n; out == 0 || in != out+int(w.Drops.Get(packet.UnknownSPI)) || in != out+total(w) {
			t.Errorf("%d arrived, %d came out, %d dropped", in, out, total(w))
		}
	}
}
