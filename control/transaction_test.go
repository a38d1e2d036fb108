package control_test

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"ipsecd/control"
	"ipsecd/pfkey"
	"ipsecd/sad"
	"ipsecd/spd"
)

func (b *bench) spis() []uint32 {
	var out []uint32
	for sa := range b.sad.All() {
		out = append(out, sa.Spec().SPI)
	}
	slices.Sort(out)
	return out
}

// errno asks in a session and returns the errno of the first answer.
func (b *bench) errno(s *control.Session, m *pfkey.Message) syscall.Errno {
	return syscall.Errno(b.Handle(s, m)[0].Errno)
}

func TestTransactionIsSeenAtCommit(t *testing.T) {
	b := newBench(t)
	setup(t, b)
	before := b.changes.Load()
	b.must(t, bare(pfkey.BEGIN), bare(pfkey.FLUSH), bare(pfkey.SPDFLUSH),
		add(0x1000, a4, b4), add(0x3000, a4, b4),
		spdadd(pfkey.DirOut, "10.1.0.0/16", "10.2.0.0/16"), spdadd(pfkey.DirIn, "10.2.0.0/16", "10.1.0.0/16"))
	if !slices.Equal(b.spis(), []uint32{0x1000}) || b.spd.Len() != 1 || b.changes.Load() != before {
		t.Fatalf("seen before the commit: SPIs %#x, %d policies, %d changes", b.spis(), b.spd.Len(), b.changes.Load())
	}
	old := b.sad.Get(sad.ID{SPI: 0x1000, Proto: sad.ProtoESP, Dst: b4})
	b.must(t, bare(pfkey.COMMIT))
	if !slices.Equal(b.spis(), []uint32{0x1000, 0x3000}) || b.spd.Len() != 2 || b.changes.Load() != before+1 {
		t.Errorf("after the commit: SPIs %#x, %d policies, %d changes", b.spis(), b.spd.Len(), b.changes.Load()-before)
	}
	if b.sad.Get(sad.ID{SPI: 0x1000, Proto: sad.ProtoESP, Dst: b4}) == old {
		t.Error("the old SA stayed")
	}
	if got := b.errno(&b.session, bare(pfkey.COMMIT)); got != syscall.EINVAL {
		t.Errorf("a second commit: %v", got)
	}
}

// A session in a transaction sees, in errnos and dumps, what it staged.
func TestTransactionAnswersFromItsView(t *testing.T) {
	b := newBench(t)
	setup(t, b)
	policy := func() *pfkey.Message { return spdadd(pfkey.DirOut, "10.1.0.0/16", "10.2.0.0/16") }
	unpolicy := func() *pfkey.Message { return spddelete(pfkey.DirOut, "10.1.0.0/16", "10.2.0.0/16") }
	steps := []struct {
		m    *pfkey.Message
		want syscall.Errno
	}{
		{bare(pfkey.BEGIN), 0},
		{bare(pfkey.BEGIN), syscall.EBUSY},
		{add(0x1000, a4, b4), syscall.EEXIST},
		{named(pfkey.DELETE, 0x1000, a4, b4), 0},
		{named(pfkey.GET, 0x1000, a4, b4), syscall.ENOENT},
		{named(pfkey.DELETE, 0x1000, a4, b4), syscall.ENOENT},
		{bare(pfkey.DUMP), syscall.ENOENT},
		{add(0x1000, a4, b4), 0},
		{add(0x1000, a4, b4), syscall.EEXIST},
		{named(pfkey.GET, 0x1000, a4, b4), 0},
		{named(pfkey.DELETE, 0x1000, a4, b4), 0},
		{named(pfkey.GET, 0x1000, a4, b4), syscall.ENOENT},
		{add(0x1001, a4, b4), 0},
		{bare(pfkey.FLUSH), 0},
		{named(pfkey.GET, 0x1001, a4, b4), syscall.ENOENT},
		{add(0x1001, a4, b4), 0},
		{policy(), syscall.EEXIST},
		{unpolicy(), 0},
		{unpolicy(), syscall.EINVAL},
		{bare(pfkey.SPDDUMP), syscall.ENOENT},
		{policy(), 0},
		{bare(pfkey.SPDFLUSH), 0},
		{policy(), 0},
		{bare(pfkey.SPDDUMP), 0},
		{bare(pfkey.COMMIT), 0},
	}
	for i, step := range steps {
		if got := b.errno(&b.session, step.m); got != step.want {
			t.Fatalf("step %d, %s: %v, want %v", i, pfkey.TypeName(step.m.Type), got, step.want)
		}
	}
	if !slices.Equal(b.spis(), []uint32{0x1001}) || b.spd.Len() != 1 {
		t.Errorf("SPIs %#x, %d policies", b.spis(), b.spd.Len())
	}
}

func TestAbortForgets(t *testing.T) {
	b := newBench(t)
	setup(t, b)
	before := b.changes.Load()
	b.must(t, bare(pfkey.BEGIN), bare(pfkey.FLUSH), bare(pfkey.SPDFLUSH), add(0x3000, a4, b4), bare(pfkey.ABORT))
	if !slices.Equal(b.spis(), []uint32{0x1000}) || b.spd.Len() != 1 || b.changes.Load() != before {
		t.Errorf("SPIs %#x, %d policies, %d changes", b.spis(), b.spd.Len(), b.changes.Load()-before)
	}
	b.must(t, bare(pfkey.BEGIN))
}

// What another session published meanwhile stays below the transaction, and the
// policies of both are whole.
func TestCommitOnTopOfOthers(t *testing.T) {
	const net1, net2, net3, net8, net9 = "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.8.0.0/16", "10.9.0.0/16"
	full := func() *pfkey.Message {
		return with(spdadd(pfkey.DirOut, net1, net3), func(m *pfkey.Message) {
			m.Policy.Priority = 7
			m.Policy.Requests[0].Level, m.Policy.Requests[0].Reqid = pfkey.LevelUnique, 99
			m.Src.Proto, m.Dst.Proto, m.Src.Port = 6, 6, 443
		})
	}
	wantFull := outPolicy(2, net1, net3)
	wantFull.Priority, wantFull.Sel.Proto, wantFull.Sel.SrcPort = 7, 6, 443
	wantFull.Requests[0].Level, wantFull.Requests[0].Reqid = spd.LevelUnique, 99

	tests := []struct {
		name        string
		mine, other []*pfkey.Message
		want        []*spd.Policy // IDs: 1 of setup, then those of mine, then of other
	}{
		{"added by both", []*pfkey.Message{full(), spdadd(pfkey.DirOut, net2, net1)},
			[]*pfkey.Message{spdadd(pfkey.DirOut, net8, net9)},
			[]*spd.Policy{outPolicy(1, net1, net2), outPolicy(4, net8, net9), outPolicy(3, net2, net1), wantFull}},
		{"deleted by both", []*pfkey.Message{spddelete(pfkey.DirOut, net1, net2), full()},
			[]*pfkey.Message{spddelete(pfkey.DirOut, net1, net2), spdadd(pfkey.DirOut, net8, net9)},
			[]*spd.Policy{outPolicy(3, net8, net9), wantFull}},
		{"replaced", []*pfkey.Message{spddelete(pfkey.DirOut, net1, net2), spdadd(pfkey.DirOut, net1, net2)},
			[]*pfkey.Message{spdadd(pfkey.DirOut, net8, net9)},
			[]*spd.Policy{outPolicy(3, net8, net9), outPolicy(2, net1, net2)}},
		{"flushed", []*pfkey.Message{spdadd(pfkey.DirOut, net2, net1), bare(pfkey.SPDFLUSH), spdadd(pfkey.DirOut, net1, net2)},
			[]*pfkey.Message{spdadd(pfkey.DirOut, net8, net9), spdadd(pfkey.DirOut, net2, net1)},
			[]*spd.Policy{outPolicy(3, net1, net2)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			setup(t, b)
			b.must(t, bare(pfkey.BEGIN))
			b.must(t, tt.mine...)
			b.mustElsewhere(t, tt.other...)
			b.must(t, bare(pfkey.COMMIT))
			if diff := cmp.Diff(tt.want, slices.Collect(b.spd.All()), policies...); diff != "" {
				t.Errorf("policies, want - got +:\n%s", diff)
			}
			for p := range b.spd.All() { // each is found where it stands
				b.must(t, with(spddelete(pfkey.DirOut, p.Sel.Src.String(), p.Sel.Dst.String()), func(m *pfkey.Message) {
					m.Src.Proto, m.Dst.Proto, m.Src.Port = p.Sel.Proto, p.Sel.Proto, p.Sel.SrcPort
				}))
			}
			if n := len(slices.Collect(b.spd.All())); n != 0 {
				t.Errorf("%d policies cannot be deleted", n)
			}
		})
	}
}

// policies compares what SPDADD gives a policy.
var policies = cmp.Options{
	cmpopts.IgnoreUnexported(spd.Policy{}),
	cmpopts.IgnoreFields(spd.Policy{}, "LastUsed"),
	cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
}

// outPolicy is what spdadd asks for.
func outPolicy(id uint32, src, dst string) *spd.Policy {
	return &spd.Policy{
		ID: id, Dir: spd.Out, Action: spd.IPsec, Created: boot,
		Sel:      spd.Selector{Src: netip.MustParsePrefix(src), Dst: netip.MustParsePrefix(dst), Proto: spd.ProtoAny},
		Requests: []spd.Request{{Proto: 50, Mode: spd.ModeTunnel, Level: spd.LevelRequire, Src: a4, Dst: b4}},
	}
}

// mustElsewhere is must in a session of its own.
func (b *bench) mustElsewhere(t *testing.T, ms ...*pfkey.Message) {
	t.Helper()
	var other control.Session
	for _, m := range ms {
		if got := b.errno(&other, m); got != 0 {
			t.Fatalf("%s: %v", pfkey.TypeName(m.Type), got)
		}
	}
}

func TestCommitOfSAsOnTopOfOthers(t *testing.T) {
	b := newBench(t)
	setup(t, b)
	b.must(t, bare(pfkey.BEGIN), named(pfkey.DELETE, 0x1000, a4, b4), add(0x3000, a4, b4))
	b.mustElsewhere(t, named(pfkey.DELETE, 0x1000, a4, b4), add(0x4000, a4, b4))
	b.must(t, bare(pfkey.COMMIT))
	if !slices.Equal(b.spis(), []uint32{0x3000, 0x4000}) {
		t.Errorf("SPIs %#x", b.spis())
	}
}

// An SA that a transaction added and deleted again may be added by others.
func TestWhatWasUnstagedIsNoConflict(t *testing.T) {
	for _, unstage := range []*pfkey.Message{
		named(pfkey.DELETE, 0x3000, a4, b4),
		with(named(pfkey.DELETE, 0, a4, b4), func(m *pfkey.Message) { m.SA = nil }),
	} {
		b := newBench(t)
		b.must(t, bare(pfkey.BEGIN), add(0x3000, a4, b4), unstage)
		b.mustElsewhere(t, add(0x3000, a4, b4))
		b.must(t, bare(pfkey.COMMIT))
		if !slices.Equal(b.spis(), []uint32{0x3000}) {
			t.Errorf("SPIs %#x", b.spis())
		}
	}
}

func TestCommitFailsAsAWhole(t *testing.T) {
	tests := []struct {
		name  string
		other *pfkey.Message
	}{
		{"same SA", add(0x3000, a4, b4)},
		{"same policy", spdadd(pfkey.DirIn, "10.2.0.0/16", "10.1.0.0/16")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			b.must(t, bare(pfkey.BEGIN), add(0x2000, a4, b4), add(0x3000, a4, b4),
				spdadd(pfkey.DirIn, "10.2.0.0/16", "10.1.0.0/16"), spdadd(pfkey.DirIn, "10.4.0.0/16", "10.1.0.0/16"))
			var other control.Session
			if got := b.errno(&other, tt.other); got != 0 {
				t.Fatal(got)
			}
			if got := b.errno(&b.session, bare(pfkey.COMMIT)); got != syscall.EEXIST {
				t.Errorf("commit: %v", got)
			}
			if b.sad.Len()+b.spd.Len() != 1 {
				t.Errorf("%d SAs, %d policies", b.sad.Len(), b.spd.Len())
			}
			b.must(t, bare(pfkey.BEGIN)) // the failed one is over
		})
	}
}

// Readers never find the SPD without its policy, nor an SA that stays missing
// from a reload, while sessions reload both in transactions.
func TestReloadHasNoGap(t *testing.T) {
	b := newBench(t)
	reload := []*pfkey.Message{bare(pfkey.BEGIN), bare(pfkey.FLUSH), bare(pfkey.SPDFLUSH)}
	for i := range uint32(20) {
		reload = append(reload, add(0x1000+i, a4, b4), spdadd(pfkey.DirOut, fmt.Sprintf("10.%d.0.0/16", i), "10.200.0.0/16"))
	}
	reload = append(reload, bare(pfkey.COMMIT))
	b.must(t, reload...)
	alternate := add(0x9000, a4, b4) // only in every other generation

	var done atomic.Bool
	var readers sync.WaitGroup
	var gaps atomic.Int64
	for range 2 {
		readers.Go(func() {
			src, dst := a4As16(a4), a4As16(b4)
			for !done.Load() {
				if b.spd.Len() != 20 || len(slices.Collect(b.spd.All())) != 20 {
					gaps.Add(1)
				}
				if b.sad.Outbound(sad.ProtoESP, sad.ModeTunnel, 0, &src, &dst) == nil {
					gaps.Add(1)
				}
			}
		})
	}
	for i := range 300 {
		b.must(t, reload[:len(reload)-1]...)
		if i%2 == 0 {
			b.must(t, alternate)
		}
		b.must(t, bare(pfkey.COMMIT))
	}
	done.Store(true)
	readers.Wait()
	if gaps.Load() != 0 {
		t.Errorf("%d gaps", gaps.Load())
	}
}

// The policy that stands has its SA at every moment of a reload that gives both
// other ends.
func TestReloadKeepsPolicyAndSATogether(t *testing.T) {
	b := newBench(t)
	const others = 300
	load := func(peer netip.Addr, base uint32) {
		b.must(t, bare(pfkey.BEGIN), bare(pfkey.FLUSH), bare(pfkey.SPDFLUSH), add(base, a4, peer))
		for i := range uint32(others) { // they take time to come and go
			b.must(t, add(base+1+i, a4, b4))
		}
		b.must(t, with(spdadd(pfkey.DirOut, "10.0.0.0/24", "10.0.1.0/24"), func(m *pfkey.Message) {
			m.Policy.Requests[0] = tunnel(a4, peer)
		}), bare(pfkey.COMMIT))
	}
	peers := []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")}
	load(peers[0], 0x1000)
	standing := func() (p *spd.Policy) {
		for p = range b.spd.All() {
		}
		return p
	}
	var done atomic.Bool
	var reader sync.WaitGroup
	gaps := 0
	reader.Go(func() {
		for !done.Load() {
			p := standing()
			if p == nil {
				gaps++
				continue
			}
			src, dst := p.Requests[0].Src.As16(), p.Requests[0].Dst.As16()
			if b.sad.Outbound(sad.ProtoESP, sad.ModeTunnel, 0, &src, &dst) == nil && standing() == p {
				gaps++
			}
		}
	})
	for i := range 40 {
		load(peers[(i+1)%2], 0x1000+0x1000*uint32((i+1)%2))
	}
	done.Store(true)
	reader.Wait()
	if gaps != 0 {
		t.Errorf("%d gaps", gaps)
	}
}

// A refused COMMIT names what is in its way, of several the first.
func TestConflictsAreNamed(t *testing.T) {
	const nothing = "; nothing is installed"
	var sas, policies []*pfkey.Message
	for i := range uint32(20) {
		sas = append(sas, add(0x3000+i, a4, b4))
		policies = append(policies, with(spdadd(pfkey.DirIn, fmt.Sprintf("10.%d.0.0/16", i), "10.200.0.0/16"), func(m *pfkey.Message) {
			m.Src.Proto, m.Dst.Proto, m.Dst.Port = 6, 6, 443
		}))
	}
	tests := []struct {
		name        string
		before      *pfkey.Message
		mine, other []*pfkey.Message
		want        string
	}{
		{"SAs", nil, sas, sas, "another session added the SA with SPI 0x3000 to 198.51.100.2 that this transaction adds"},
		{"policies", nil, policies, policies, "another session added the policy 10.0.0.0/16 10.200.0.0/16[443] tcp -P in that this transaction adds"},
		{"replaced", sas[1], []*pfkey.Message{rekey(add(0x3001, a4, b4))}, []*pfkey.Message{rekey(add(0x3001, a4, b4))},
			"another session replaced the SA with SPI 0x3001 to 198.51.100.2 that this transaction changes"},
		{"removed", sas[1], []*pfkey.Message{rekey(add(0x3001, a4, b4))}, []*pfkey.Message{bare(pfkey.FLUSH)},
			"another session removed the SA with SPI 0x3001 to 198.51.100.2 that this transaction changes"},
	}
	for _, tt := range tests {
		b := newBench(t)
		if tt.before != nil {
			b.must(t, tt.before)
		}
		b.must(t, bare(pfkey.BEGIN))
		b.must(t, tt.mine...)
		b.mustElsewhere(t, tt.other...)
		if r := b.ask(bare(pfkey.COMMIT))[0]; r.Text != tt.want+nothing {
			t.Errorf("%s: %q", tt.name, r.Text)
		}
	}
}

func a4As16(a netip.Addr) [16]byte { return a.As16() }

// Many sessions at once, for the race detector; in the end everything is
// accounted for.
func TestConcurrentSessions(t *testing.T) {
	b := &bench{sad: sad.New(), spd: spd.New()}
	b.Engine = control.New(control.Config{SAD: b.sad, SPD: b.spd})
	var sessions sync.WaitGroup
	for n := range uint32(4) {
		sessions.Go(func() {
			var s control.Session
			for i := range uint32(100) {
				spi := 0x1000 + n*0x1000 + i
				ask := []*pfkey.Message{
					bare(pfkey.BEGIN),
					add(spi, a4, b4),
					spdadd(pfkey.DirOut, fmt.Sprintf("10.%d.%d.0/24", n, i), "10.200.0.0/16"),
					bare(pfkey.COMMIT),
					bare(pfkey.DUMP),
					bare(pfkey.SPDDUMP),
					named(pfkey.DELETE, spi, a4, b4),
				}
				for _, m := range ask {
					if got := b.errno(&s, m); got != 0 {
						t.Errorf("%s: %v", pfkey.TypeName(m.Type), got)
					}
				}
			}
		})
	}
	sessions.Wait()
	if b.sad.Len() != 0 || b.spd.Len() != 400 {
		t.Errorf("%d SAs, %d policies", b.sad.Len(), b.spd.Len())
	}
}
