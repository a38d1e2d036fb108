package dataplane_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"

	"ipsecd/control"
	"ipsecd/dataplane"
	"ipsecd/dataplane/link"
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

// TestGolden opens what real kernels sealed, each direction on the host that
// it was sent to, and wants the octets that went in.
func TestGolden(t *testing.T) {
	cases, err := filepath.Glob("../testdata/golden/linux/*")
	if err != nil || len(cases) < 17 {
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
	if err := json.Unmarshal(readFile(t, filepath.Join(dir, "packets.json")), &packets); err != nil {
		t.Fatal(err)
	}
	e := newTestEngine(t)
	if err := e.control.LoadFile(filepath.Join(dir, host)); err != nil {
		t.Fatal(err)
	}
	var want [][]byte
	var in [][]byte
	for _, p := range packets {
		if p.Dir == direction {
			in = append(in, wire[p.Frames[0]-1][ethernetHeader:])
			want = append(want, plain[p.Plain-1])
		}
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
