package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"

	"ipsecd/control"
	"ipsecd/dataplane"
	"ipsecd/dataplane/link"
	"ipsecd/packet"
	"ipsecd/sad"
	"ipsecd/spd"
)

const ethernetHeader = 14

// goldenPacket is one entry of packets.json.
type goldenPacket struct {
	Frames []int
	Dir    string
	Plain  int
}

// goldenSA is what case.json says of an SA that nothing else does: the sequence
// number behind which its sender began.
type goldenSA struct {
	Dir, Dst string
	SPI      uint32
	OSeq     uint64
}

// TestGolden opens what real kernels sealed, each direction on the host that
// it was sent to, and wants the octets that went in.
func TestGolden(t *testing.T) {
	cases, err := filepath.Glob("../testdata/golden/linux/*")
	if err != nil || len(cases) < 40 {
		t.Fatalf("%d golden cases: %v", len(cases), err)
	}
	for _, dir := range cases {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			for to, host := range map[string]string{"a2b": "setkey.b.conf", "b2a": "setkey.a.conf"} {
				openGolden(t, dir, to, host)
			}
		})
	}
}

func openGolden(t *testing.T, dir, direction, host string) {
	wire := readPcap(t, filepath.Join(dir, "wire.pcap"))
	plain := readPcap(t, filepath.Join(dir, "plain.pcap"))
	var packets []goldenPacket
	readJSON(t, filepath.Join(dir, "packets.json"), &packets)
	e := newTestEngine(t)
	if err := e.control.LoadFile(filepath.Join(dir, host)); err != nil {
		t.Fatal(err)
	}
	e.resume(t, filepath.Join(dir, "case.json"), direction)
	var in, want [][]byte
	for _, p := range packets {
		if p.Dir != direction {
			continue
		}
		var frames [][]byte
		for _, n := range p.Frames {
			frames = append(frames, wire[n-1][ethernetHeader:])
		}
		in = append(in, reassemble(t, frames))
		want = append(want, plain[p.Plain-1])
	}
	got := e.open(in...)
	for d, n := range e.Drops.All() {
		t.Errorf("%s: %d dropped as %v", direction, n, d)
	}
	if len(got) != len(want) || len(want) == 0 {
		t.Fatalf("%s: %d of %d packets opened", direction, len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("%s packet %d:\n got %x\nwant %x", direction, i, got[i], want[i])
		}
	}
}

// resume tells the SAs of a direction where their sender began.
func (e *testEngine) resume(t *testing.T, file, direction string) {
	t.Helper()
	var c struct{ SAs []goldenSA }
	readJSON(t, file, &c)
	for _, g := range c.SAs {
		if g.Dir != direction {
			continue
		}
		sa := e.SAD.Get(sad.ID{SPI: g.SPI, Proto: sad.ProtoESP, Dst: netip.MustParseAddr(g.Dst)})
		if sa == nil {
			t.Fatalf("no SA with SPI %#x to %s", g.SPI, g.Dst)
		}
		sa.Resume(0, g.OSeq)
	}
}

// reassemble puts fragments together, given in order, as the kernel does before
// a raw socket sees the packet.
func reassemble(t *testing.T, frags [][]byte) []byte {
	t.Helper()
	if len(frags) == 1 {
		return frags[0]
	}
	first, _ := fragmentAt(frags[0])
	whole := bytes.Clone(frags[0][:first])
	for _, f := range frags {
		data, offset := fragmentAt(f)
		if offset != len(whole)-first {
			t.Fatalf("a fragment at %d, after %d octets", offset, len(whole)-first)
		}
		whole = append(whole, f[data:]...)
	}
	if whole[0]>>4 == 4 {
		whole[6], whole[7] = 0, 0
		packet.SetNext(whole, 9, whole[9])
		return whole
	}
	next := whole[packet.IPv6HeaderLen]
	whole = append(whole[:packet.IPv6HeaderLen], whole[packet.IPv6HeaderLen+8:]...)
	packet.SetNext(whole, 6, next)
	return whole
}

// fragmentAt returns where the data of a fragment begins, and where it belongs.
func fragmentAt(f []byte) (data, offset int) {
	if f[0]>>4 == 4 {
		return int(f[0]&15) * 4, int(binary.BigEndian.Uint16(f[6:])&0x1fff) * 8
	}
	return packet.IPv6HeaderLen + 8, int(binary.BigEndian.Uint16(f[packet.IPv6HeaderLen+2:]) &^ 7)
}

// testEngine is an engine between memory links, with the key engine that fills
// its databases.
type testEngine struct {
	*dataplane.Engine
	control *control.Engine
	now     int64
}

func newTestEngine(t testing.TB) *testEngine {
	e := &testEngine{now: 1}
	c := dataplane.Config{SAD: sad.New(), SPD: spd.New(), Now: func() int64 { return e.now }}
	e.Engine = dataplane.New(c)
	e.control = control.New(control.Config{SAD: c.SAD, SPD: c.SPD, NATTPort: 4500})
	return e
}

func (e *testEngine) load(t testing.TB, script string) {
	t.Helper()
	if err := e.control.Load("test", []byte(script)); err != nil {
		t.Fatal(err)
	}
}

// open takes packets from the wire and returns what comes out at the TUN.
func (e *testEngine) open(pkts ...[]byte) [][]byte {
	wire, host := link.NewMemory(len(pkts)), link.NewMemory(0)
	for _, p := range pkts {
		wire.Put(bytes.Clone(p))
	}
	wire.Close()
	e.NewOutside(link.MemoryOutside{Memory: wire}, link.MemoryInside{Memory: host}).Run()
	return host.Written()
}

// send takes packets from the TUN and returns what leaves: sealed, and in
// clear.
func (e *testEngine) send(pkts ...[]byte) (sealed, clear [][]byte) {
	host, wire, bypass := link.NewMemory(len(pkts)), link.NewMemory(0), link.NewMemory(0)
	for _, p := range pkts {
		host.Put(bytes.Clone(p))
	}
	host.Close()
	w, b := link.MemoryOutside{Memory: wire}, link.MemoryOutside{Memory: bypass}
	e.NewInside(link.MemoryInside{Memory: host}, dataplane.Wires{
		Raw4: w, Raw6: w, UDP4: w, UDP6: w, UDPPort: 4500, Bypass4: b, Bypass6: b,
	}).Run()
	return wire.Written(), bypass.Written()
}

func readJSON(t testing.TB, path string, v any) {
	t.Helper()
	if err := json.Unmarshal(readFile(t, path), v); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readPcap(t testing.TB, path string) [][]byte {
	t.Helper()
	r, err := pcapgo.NewReader(bytes.NewReader(readFile(t, path)))
	if err != nil {
		t.Fatal(err)
	}
	var pkts [][]byte
	for {
		p, _, err := r.ReadPacketData()
		if err != nil {
			return pkts
		}
		pkts = append(pkts, p)
	}
}
