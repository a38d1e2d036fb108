package control_test

import (
	"bytes"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"ipsecd/control"
	"ipsecd/crypto/alg"
	"ipsecd/pfkey"
	"ipsecd/sad"
	"ipsecd/spd"
)

const (
	boot     = 1_700_000_000 // the clock of every test engine
	nattPort = 4500
)

var (
	a4, b4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	a6, b6 = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
)

// bench is an engine with its surroundings and one session.
type bench struct {
	*control.Engine
	sad     *sad.DB
	spd     *spd.DB
	log     syncBuffer
	changes atomic.Int64
	session control.Session
}

// syncBuffer is a buffer that a server's goroutines log to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{sad: sad.New(), spd: spd.New()}
	b.Engine = control.New(control.Config{
		SAD:      b.sad,
		SPD:      b.spd,
		Log:      slog.New(slog.NewTextHandler(&b.log, nil)),
		NATTPort: nattPort,
		Now:      func() time.Time { return time.Unix(boot, 0) },
		OnChange: func() error { b.changes.Add(1); return nil },
	})
	return b
}

// ask handles m in the bench's own session.
func (b *bench) ask(m *pfkey.Message) []*pfkey.Message { return b.Handle(&b.session, m) }

// must handles messages that are to be granted.
func (b *bench) must(t testing.TB, ms ...*pfkey.Message) {
	t.Helper()
	for _, m := range ms {
		for _, r := range b.ask(m) {
			if r.Errno != 0 {
				t.Fatalf("%s: %v %s", pfkey.TypeName(m.Type), syscall.Errno(r.Errno), r.Text)
			}
		}
	}
}

func host(a netip.Addr) *pfkey.Address {
	return &pfkey.Address{Proto: 255, PrefixLen: uint8(a.BitLen()), Addr: a}
}

// gcmKey is a key with salt; SAs that share it have equal n.
func gcmKey(n byte) *pfkey.Key {
	return &pfkey.Key{Bits: 160, Data: bytes.Repeat([]byte{n}, 20)}
}

func add(spi uint32, src, dst netip.Addr) *pfkey.Message {
	return &pfkey.Message{
		Type: pfkey.ADD, SAType: pfkey.SATypeESP, Seq: 7, PID: 4242,
		SA:     &pfkey.SA{SPI: spi, Replay: 4, State: pfkey.StateMature, Enc: alg.AESGCM16, Flags: pfkey.FlagCycSeq},
		SA2:    &pfkey.SA2{Mode: pfkey.ModeTunnel, Reqid: 5},
		Src:    host(src),
		Dst:    host(dst),
		EncKey: gcmKey(byte(spi)),
	}
}

// named is a message about one SA.
func named(typ uint8, spi uint32, src, dst netip.Addr) *pfkey.Message {
	return &pfkey.Message{Type: typ, SAType: pfkey.SATypeESP, SA: &pfkey.SA{SPI: spi}, Src: host(src), Dst: host(dst)}
}

func bare(typ uint8) *pfkey.Message { return &pfkey.Message{Type: typ, Seq: 9, PID: 4242} }

func selected(p string) *pfkey.Address {
	x := netip.MustParsePrefix(p)
	return &pfkey.Address{Proto: 255, PrefixLen: uint8(x.Bits()), Addr: x.Addr()}
}

func tunnel(src, dst netip.Addr) pfkey.Request {
	return pfkey.Request{Proto: 50, Mode: pfkey.ModeTunnel, Level: pfkey.LevelRequire, Src: src, Dst: dst}
}

// transport is a request in transport mode, with ends unless they are empty.
func transport(src, dst string) pfkey.Request {
	r := pfkey.Request{Proto: 50, Mode: pfkey.ModeTransport, Level: pfkey.LevelRequire}
	r.Src, _ = netip.ParseAddr(src)
	r.Dst, _ = netip.ParseAddr(dst)
	return r
}

func spdadd(dir uint8, src, dst string) *pfkey.Message {
	return &pfkey.Message{
		Type: pfkey.SPDADD, Seq: 8, PID: 4242,
		Src:    selected(src),
		Dst:    selected(dst),
		Policy: &pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: dir, Requests: []pfkey.Request{tunnel(a4, b4)}},
	}
}

// spdupdate is about a policy out.
func spdupdate(src, dst string) *pfkey.Message {
	m := spdadd(pfkey.DirOut, src, dst)
	m.Type = pfkey.SPDUPDATE
	return m
}

func spdget(id uint32) *pfkey.Message {
	m := bare(pfkey.SPDGET)
	m.Policy = &pfkey.Policy{ID: id}
	return m
}

func spddelete(dir uint8, src, dst string) *pfkey.Message {
	m := spdadd(dir, src, dst)
	m.Type, m.Policy = pfkey.SPDDELETE, &pfkey.Policy{Dir: dir}
	return m
}

// with is m after a change.
func with(m *pfkey.Message, change func(*pfkey.Message)) *pfkey.Message {
	change(m)
	return m
}

// setup puts one SA and one policy into a bench.
func setup(t testing.TB, b *bench) {
	t.Helper()
	b.must(t, add(0x1000, a4, b4), spdadd(pfkey.DirOut, "10.1.0.0/16", "10.2.0.0/16"))
}
