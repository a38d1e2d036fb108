package control_test

import (
	"net/netip"
	"reflect"
	"slices"
	"syscall"
	"testing"

	"ipsecd/control"
	"ipsecd/pfkey"
	"ipsecd/spd"
)

func TestPolicyDump(t *testing.T) {
	b := newBench(t)
	out := with(spdadd(pfkey.DirOut, "10.1.9.9/16", "10.2.0.0/16"), func(m *pfkey.Message) {
		m.Src.Proto, m.Dst.Proto, m.Dst.Port = 6, 6, 443
		m.Policy.Priority = 70
		m.Policy.Requests[0].Level = pfkey.LevelUnique
	})
	reply := b.ask(out)[0]
	want := &pfkey.Message{
		Type: pfkey.SPDADD, Seq: 8, PID: 4242,
		Src: &pfkey.Address{Proto: 6, PrefixLen: 16, Addr: netip.MustParseAddr("10.1.0.0")},
		Dst: &pfkey.Address{Proto: 6, PrefixLen: 16, Addr: netip.MustParseAddr("10.2.0.0"), Port: 443},
		Policy: &pfkey.Policy{Type: pfkey.PolicyIPsec, Dir: pfkey.DirOut, ID: 1, Priority: 70, Requests: []pfkey.Request{
			{Proto: 50, Mode: pfkey.ModeTunnel, Level: pfkey.LevelUnique, Reqid: 16384, Src: a4, Dst: b4},
		}},
	}
	if !reflect.DeepEqual(reply, want) {
		t.Errorf("reply %+v\nwant %+v", reply, want)
	}
	b.must(t, spdadd(pfkey.DirIn, "10.2.0.0/16", "10.1.0.0/16"))
	got := b.ask(bare(pfkey.SPDDUMP))
	if len(got) != 2 || got[0].Policy.Dir != pfkey.DirIn || got[0].Policy.ID != 2 || got[0].Seq != 1 {
		t.Fatalf("got %d, first %+v", len(got), got[0])
	}
	want.Type, want.Seq, want.Reserved = pfkey.SPDDUMP, 0, 1
	if !reflect.DeepEqual(got[1], want) {
		t.Errorf("got %+v\nwant %+v", got[1], want)
	}
}

// SPDUPDATE keeps the place, unless the priority is another, and gives a new ID
// and, to a level unique without a reqid, a new reqid.
func TestPolicyUpdate(t *testing.T) {
	const net1, net2, net3, net4 = "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16"
	later := func(m *pfkey.Message) { m.Policy.Priority = 1 }
	unique := func(m *pfkey.Message) { m.Policy.Requests[0].Level = pfkey.LevelUnique }
	tests := []struct {
		name string
		m    *pfkey.Message
		want []uint32 // IDs in order
	}{
		{"first", spdupdate(net1, net4), []uint32{4, 2, 3}},
		{"second", spdupdate(net2, net4), []uint32{1, 4, 3}},
		{"new", spdupdate(net4, net1), []uint32{1, 2, 3, 4}},
		{"later", with(spdupdate(net2, net4), later), []uint32{1, 3, 4}},
		{"unique", with(spdupdate(net2, net4), unique), []uint32{1, 4, 3}},
	}
	for _, tt := range tests {
		for _, name := range []string{"at once", "in a transaction", "on top of others"} {
			t.Run(tt.name+" "+name, func(t *testing.T) {
				b := newBench(t)
				b.must(t, with(spdadd(pfkey.DirOut, net1, net4), unique), spdadd(pfkey.DirOut, net2, net4), spdadd(pfkey.DirOut, net3, net4))
				if name != "at once" {
					b.must(t, bare(pfkey.BEGIN))
				}
				r := b.ask(tt.m)[0]
				if r.Errno != 0 || r.Type != pfkey.SPDUPDATE || r.Seq != 8 || r.PID != 4242 || r.Policy.ID != 4 || r.Reserved != 0 {
					t.Fatalf("answer %+v", r)
				}
				if level := r.Policy.Requests[0].Level; level == pfkey.LevelUnique && r.Policy.Requests[0].Reqid != 16385 {
					t.Errorf("reqid %d", r.Policy.Requests[0].Reqid)
				}
				if name == "on top of others" {
					b.mustElsewhere(t, spdadd(pfkey.DirIn, net1, net2))
				}
				if name != "at once" {
					b.checkOut(t, []uint32{1, 2, 3})
					b.must(t, bare(pfkey.COMMIT))
				}
				b.checkOut(t, tt.want)
			})
		}
	}
}

// checkOut compares the IDs of the published policies out, in order.
func (b *bench) checkOut(t *testing.T, want []uint32) {
	t.Helper()
	var got []uint32
	for p := range b.spd.All() {
		if p.Dir == spd.Out {
			got = append(got, p.ID)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("policies %d, want %d", got, want)
	}
}

// What another session did to the policy meanwhile makes no difference to one
// that is replaced.
func TestPolicyUpdateOnTopOfOthers(t *testing.T) {
	const net1, net2, net3 = "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"
	none := func(m *pfkey.Message) { m.Policy.Type, m.Policy.Requests = pfkey.PolicyNone, nil }
	for name, other := range map[string]*pfkey.Message{
		"deleted":   spddelete(pfkey.DirOut, net1, net2),
		"replaced":  spdupdate(net1, net2),
		"flushed":   bare(pfkey.SPDFLUSH),
		"elsewhere": spdadd(pfkey.DirOut, net3, net2),
	} {
		b := newBench(t)
		setup(t, b)
		b.must(t, bare(pfkey.BEGIN), with(spdupdate(net1, net2), none))
		b.mustElsewhere(t, other)
		b.must(t, bare(pfkey.COMMIT))
		p := b.spd.Get(2)
		if p == nil || p.Action != spd.None || b.spd.Get(1) != nil {
			t.Errorf("%s: policy 2 is %+v", name, p)
		}
	}
}

func TestPolicyGet(t *testing.T) {
	b := newBench(t)
	b.must(t, with(spdadd(pfkey.DirOut, "10.1.0.0/16", "10.2.0.0/16"), func(m *pfkey.Message) {
		m.Policy.Requests = []pfkey.Request{transport("", "")}
	}), spdadd(pfkey.DirIn, "10.2.0.0/16", "10.1.0.0/16"))
	for _, want := range b.ask(bare(pfkey.SPDDUMP)) {
		r := b.ask(spdget(want.Policy.ID))[0]
		want.Type, want.Seq = pfkey.SPDGET, 9
		if !reflect.DeepEqual(r, want) {
			t.Errorf("got %+v\nwant %+v", r, want)
		}
	}
	b.must(t, bare(pfkey.BEGIN), spdupdate("10.1.0.0/16", "10.2.0.0/16"))
	var other control.Session
	for id, want := range map[uint32][2]syscall.Errno{1: {syscall.ENOENT, 0}, 2: {0, 0}, 3: {0, syscall.ENOENT}, 0: {syscall.ENOENT, syscall.ENOENT}} {
		if got := [2]syscall.Errno{b.errno(&b.session, spdget(id)), b.errno(&other, spdget(id))}; got != want {
			t.Errorf("ID %d: %v, want %v", id, got, want)
		}
	}
}

// Reqids count at level unique alone, and those above what people give are the
// engine's to give: a policy keeps the one it had, and gets another than it had
// made up.
func TestReqids(t *testing.T) {
	const net1, net2, net3 = "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"
	asking := func(level uint8, reqid uint32) func(*pfkey.Message) {
		return func(m *pfkey.Message) { m.Policy.Requests[0].Level, m.Policy.Requests[0].Reqid = level, reqid }
	}
	b := newBench(t)
	for i, step := range []struct {
		m    *pfkey.Message
		want uint32
	}{
		{with(spdadd(pfkey.DirOut, net1, net2), asking(pfkey.LevelUnique, 0)), 16384},
		{with(spdupdate(net1, net2), asking(pfkey.LevelUnique, 16384)), 16384},
		{with(spdupdate(net1, net2), asking(pfkey.LevelUnique, 16385)), 16385}, // made up, and the next to give
		{with(spdupdate(net1, net2), asking(pfkey.LevelUnique, 16384)), 16386}, // it had that before
		{with(spdupdate(net1, net2), asking(pfkey.LevelUnique, 16383)), 16383},
		{with(spdupdate(net1, net2), asking(pfkey.LevelRequire, 7)), 0},
		{with(spdadd(pfkey.DirOut, net1, net3), asking(pfkey.LevelUnique, 16386)), 16387},
		{with(spdadd(pfkey.DirOut, net3, net1), asking(pfkey.LevelDefault, 40000)), 0},
	} {
		r := b.ask(step.m)[0]
		if r.Errno != 0 || r.Policy.Requests[0].Reqid != step.want {
			t.Fatalf("step %d: errno %d, %+v", i, r.Errno, r.Policy)
		}
		if p := b.spd.Get(r.Policy.ID); p.Requests[0].Reqid != step.want {
			t.Errorf("step %d: published with %d", i, p.Requests[0].Reqid)
		}
	}
}
