package link

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"testing"
	"time"

	"ipsecd/internal/netns"
	"ipsecd/packet"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m.Run)) }

// patience bounds every wait for a packet.
const patience = 10 * time.Second

// mtu of the wire between two hosts.
const mtu = 1500

// host is a namespace with an address of each family on a wire, and one more
// of IPv4.
type host struct {
	t    testing.TB
	ns   *netns.NS
	a4   netip.Addr
	also netip.Addr
	a6   netip.Addr
}

func newHost(t testing.TB, name string, last byte) *host {
	t.Helper()
	netns.Need(t)
	ns, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	a6 := netip.MustParseAddr("fd00:9::").As16()
	a6[15] = last
	return &host{t, ns, netip.AddrFrom4([4]byte{10, 9, 0, last}), netip.AddrFrom4([4]byte{10, 9, 0, last + 100}), netip.AddrFrom16(a6)}
}

// wired are two hosts and a wire.
func wired(t testing.TB) (a, b *host) {
	t.Helper()
	a, b = newHost(t, "a", 1), newHost(t, "b", 2)
	addrs := func(h *host) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(h.a4, 24), netip.PrefixFrom(h.also, 24), netip.PrefixFrom(h.a6, 64)}
	}
	if err := netns.Veth(a.ns, b.ns, "wire", "wire", addrs(a), addrs(b), mtu); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func (h *host) do(fn func() error) {
	h.t.Helper()
	if err := h.ns.Do(fn); err != nil {
		h.t.Fatal(err)
	}
}

// addr is the host's address of a family.
func (h *host) addr(v6 bool) packet.Addr {
	if v6 {
		return packet.AddrFrom(h.a6)
	}
	return packet.AddrFrom(h.a4)
}

// open opens a link inside the host's namespace.
func (h *host) open(f func() (Outside, error)) (l Outside) {
	h.t.Helper()
	h.do(func() (err error) { l, err = f(); return err })
	h.t.Cleanup(func() { l.Close() })
	return l
}

func (h *host) raw(v6 bool) Outside {
	h.t.Helper()
	return h.open(func() (Outside, error) { return OpenRaw(v6, packet.ProtoESP, 0) })
}

func (h *host) udp(v6 bool, port uint16) Outside {
	h.t.Helper()
	return h.open(func() (Outside, error) { return OpenUDP(v6, port, 0) })
}

// awaited runs f, which blocks on the link, and ends the test when it takes too
// long.
func awaited[T any](t testing.TB, l interface{ Close() error }, f func() (T, error)) (T, error) {
	t.Helper()
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-time.After(patience):
		l.Close()
		t.Fatal("nothing arrives")
		panic("unreachable")
	}
}

// receive reads until packets have come, and returns copies of the bursts.
func receive(t testing.TB, l Outside, packets int) []packet.Burst {
	t.Helper()
	got, err := awaited(t, l, func() (got []packet.Burst, err error) {
		bs := make([]packet.Burst, ReadBatch)
		for n := 0; n < packets; {
			k, err := l.Read(bs)
			if err != nil {
				return nil, err
			}
			for _, b := range bs[:k] {
				n += b.Len()
				c := packet.Burst{Seg: b.Seg, Head: bytes.Clone(b.Head), Partial: b.Partial}
				for _, s := range b.Segs {
					c.Segs = append(c.Segs, bytes.Clone(s))
				}
				got = append(got, c)
			}
		}
		return got, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// pattern is n octets of which no two stretches are the same.
func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*i>>3) + byte(i) + seed
	}
	return p
}

// Close ends a Read that waits, and what comes behind it, by os.ErrClosed.
func checkClose(t *testing.T, close func() error, read, write func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- read() }()
	time.Sleep(20 * time.Millisecond) // most often it waits by then; either way is right
	if err := close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("the waiting Read ends with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Read goes on waiting")
	}
	if err := read(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	if err := write(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
}
