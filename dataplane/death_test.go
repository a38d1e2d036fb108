package dataplane

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ipsecd/control"
	"ipsecd/dataplane/link"
	"ipsecd/packet"
	"ipsecd/sad"
	"ipsecd/spd"
)

// flood is a host that always has the same packet to send, until it is closed.
type flood struct {
	link.Inside
	pkt    []byte
	buf    []byte
	closed *atomic.Bool
}

func (f *flood) Read(b *packet.Burst) error {
	if f.closed.Load() {
		return os.ErrClosed
	}
	runtime.Gosched() // on one processor the others get their turn
	*b = packet.Burst{Seg: packet.Lone, Head: f.buf[:copy(f.buf, f.pkt)], Segs: b.Segs[:0]}
	return nil
}

// opener is a wire whose far end opens all that is sent, at once.
type opener struct {
	link.Outside
	mu   sync.Mutex
	far  *Outside
	buf  [2048]byte
	sent int
}

func (o *opener) Writer() link.PacketWriter { return o }

func (o *opener) Write(pkts [][]byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range pkts {
		o.sent++
		b := lone(o.buf[:copy(o.buf[:], p)])
		o.far.handle([]packet.Burst{b})
	}
	return len(pkts), nil
}

// SAs die at full load, a thousand of them: the far end opens every packet that
// was sealed, so none was sealed under octets of a key that were zeroed already;
// and all of them are zeroed in the end. The race detector has its say.
func TestSADeathUnderLoad(t *testing.T) {
	for name, suite := range map[string]string{
		"gcm": "aes-gcm-16 0x%032x01020304",
		"cbc": "aes-cbc 0x%032x -A hmac-sha2-256 0x0102030405060708010203040506070801020304050607080102030405060708",
	} {
		t.Run(name, func(t *testing.T) { dieUnderLoad(t, suite) })
	}
}

const deaths = 1000

func dieUnderLoad(t *testing.T, suite string) {
	near := New(Config{SAD: sad.New(), SPD: spd.New(), Now: func() int64 { return 1 }})
	far := New(Config{SAD: sad.New(), SPD: spd.New(), Now: near.Now})
	nearKeys := control.New(control.Config{SAD: near.SAD, SPD: near.SPD})
	farKeys := control.New(control.Config{SAD: far.SAD, SPD: far.SPD})
	run := func(e *control.Engine, format string, args ...any) {
		t.Helper()
		if err := e.Load("test", fmt.Appendf(nil, format, args...)); err != nil {
			t.Fatal(err)
		}
	}
	add := func(e *control.Engine, i int) {
		t.Helper()
		run(e, "add 192.0.2.1 192.0.2.2 esp %#x -m tunnel -r 16384 -E "+suite+";", 0x1000+i, i+1)
	}
	run(nearKeys, "spdadd 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;")
	for i := range deaths + 1 {
		add(farKeys, i)
	}
	host := &counting{}
	wire := &opener{far: far.NewOutside(nil, countingHost{to: host})}
	add(nearKeys, 0)

	var closed atomic.Bool
	var workers sync.WaitGroup
	for third := range byte(2) {
		f := &flood{pkt: datagramFrom(third, 100), buf: make([]byte, 256), closed: &closed}
		w := near.NewInside(f, Wires{Raw4: wire})
		workers.Go(func() {
			if err := w.Run(); err != nil {
				t.Error(err)
			}
		})
	}
	var dead []*sad.SA
	for i := range deaths {
		old := near.SAD.Get(sad.ID{SPI: 0x1000 + uint32(i), Proto: sad.ProtoESP, Dst: near192(2)})
		dead = append(dead, old)
		packets := old.Usage().Packets
		waitFor(t, func() bool { return old.Usage().Packets >= packets+3 })
		if i%2 == 0 { // with a successor
			add(nearKeys, i+1)
		}
		run(nearKeys, "delete 192.0.2.1 192.0.2.2 esp %#x;", 0x1000+i)
		if i%2 == 1 { // and without
			add(nearKeys, i+1)
		}
	}
	closed.Store(true)
	workers.Wait()

	if n := near.SAD.Reap(); n != 0 {
		t.Errorf("%d SAs wait still, and nobody works", n)
	}
	for i, sa := range dead {
		if enc, auth := sa.Keys(); enc != nil || auth != nil {
			t.Fatalf("SA %d has its keys still", i)
		}
	}
	if wire.sent < 3*deaths || host.n != wire.sent {
		t.Errorf("%d opened of %d sealed", host.n, wire.sent)
	}
	for d, n := range far.Drops.All() {
		t.Errorf("%d dropped as %v by the far end", n, d)
	}
	for d, n := range near.Drops.All() {
		if d != packet.NoSA {
			t.Errorf("%d dropped as %v", n, d)
		}
	}
}

// waitFor waits until other goroutines have made something true.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("nothing happens")
		}
	}
}

func near192(host byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, host}) }
