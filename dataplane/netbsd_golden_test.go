package dataplane_test

import (
	"bytes"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"ipsecd/packet"
)

// netbsdCase is what case.json says of a matrix case.
type netbsdCase struct {
	A, B    string
	PingSrc string `json:"ping_src"`
	PingDst string `json:"ping_dst"`
	PingOK  int    `json:"ping_ok"` // answered pairs of each size
}

// TestGoldenNetBSD opens what NetBSD sealed: in each direction pings of 56 and of
// 1000 octets, two of each, or as many as that kernel accepted itself.
func TestGoldenNetBSD(t *testing.T) {
	cases, err := filepath.Glob("../testdata/golden/netbsd/*")
	if err != nil || len(cases) < 45 {
		t.Fatalf("%d golden cases: %v", len(cases), err)
	}
	for _, dir := range cases {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			var c netbsdCase
			readJSON(t, filepath.Join(dir, "case.json"), &c)
			frames := readPcap(t, filepath.Join(dir, "cap.pcap"))
			replies := 2 * c.PingOK
			openNetBSD(t, dir, "B.conf", espBetween(frames, c.A, c.B), echoes{c.PingSrc, c.PingDst, false, 4})
			openNetBSD(t, dir, "A.conf", espBetween(frames, c.B, c.A), echoes{c.PingDst, c.PingSrc, true, replies})
		})
	}
}

// TestGoldenNetBSDSets opens what NetBSD sealed beside the matrix: ESP in UDP,
// headers of forwarded packets, replay windows. All of it is ICMP of which every
// octet counts in the checksum.
func TestGoldenNetBSDSets(t *testing.T) {
	cases, err := filepath.Glob("../testdata/golden/netbsd-sets/*")
	if err != nil || len(cases) < 9 {
		t.Fatalf("%d golden cases: %v", len(cases), err)
	}
	for _, dir := range cases {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			e := newTestEngine(t)
			if err := e.control.LoadFile(filepath.Join(dir, "A.conf")); err != nil {
				t.Fatal(err)
			}
			var in [][]byte
			for _, f := range readPcap(t, filepath.Join(dir, "cap.pcap")) {
				if ip := f[ethernetHeader:]; ip[0] == 0x45 && (ip[9] == packet.ProtoESP || ip[9] == packet.ProtoUDP) {
					in = append(in, ip)
				}
			}
			got := e.open(in...)
			for d, n := range e.Drops.All() {
				t.Errorf("%d dropped as %v", n, d)
			}
			if len(got) != len(in) || len(got) < 4 {
				t.Errorf("%d of %d packets opened", len(got), len(in))
			}
			for i, p := range got {
				if p[9] != packet.ProtoICMP || !goodChecksums(p) {
					t.Errorf("packet %d is no echo, or spoilt: %x", i, p)
				}
			}
		})
	}
}

// espBetween returns the ESP packets from one host to the other.
func espBetween(frames [][]byte, from, to string) (pkts [][]byte) {
	src, dst := netip.MustParseAddr(from), netip.MustParseAddr(to)
	for _, f := range frames {
		ip := f[ethernetHeader:]
		switch {
		case ip[0]>>4 == 4 && ip[9] == 50 && bytes.Equal(ip[12:16], src.AsSlice()) && bytes.Equal(ip[16:20], dst.AsSlice()),
			ip[0]>>4 == 6 && ip[6] == 50 && bytes.Equal(ip[8:24], src.AsSlice()) && bytes.Equal(ip[24:40], dst.AsSlice()):
			pkts = append(pkts, ip)
		}
	}
	return pkts
}

// echoes are the pings of one direction.
type echoes struct {
	src, dst string
	replies  bool
	n        int
}

func openNetBSD(t *testing.T, dir, host string, in [][]byte, want echoes) {
	t.Helper()
	e := newTestEngine(t)
	if err := e.control.LoadFile(filepath.Join(dir, host)); err != nil {
		t.Fatal(err)
	}
	got := e.open(in...)
	for d, n := range e.Drops.All() {
		t.Errorf("%s: %d dropped as %v", host, n, d)
	}
	if len(got) != len(in) || len(got) != want.n {
		t.Fatalf("%s: %d of %d packets opened, want %d", host, len(got), len(in), want.n)
	}
	for k, p := range got {
		size := 56
		if k >= len(got)/2 {
			size = 1000
		}
		want.check(t, k, size, p)
	}
}

// check wants p to be an ICMP echo, every octet of it as it was sent.
func (want echoes) check(t *testing.T, k, size int, p []byte) {
	t.Helper()
	first := gopacket.LayerType(layers.LayerTypeIPv4)
	if p[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	d := gopacket.NewPacket(p, first, gopacket.Default)
	if d.ErrorLayer() != nil || d.NetworkLayer() == nil {
		t.Fatalf("packet %d: %v", k, d)
	}
	flow := d.NetworkLayer().NetworkFlow()
	if flow.Src().String() != want.src || flow.Dst().String() != want.dst {
		t.Errorf("packet %d is %v, want %s to %s", k, flow, want.src, want.dst)
	}
	if !goodChecksums(p) {
		t.Errorf("packet %d has a wrong checksum: %x", k, p)
	}
	if kind := p[len(p)-size-8]; kind != want.kind(p[0]>>4) {
		t.Errorf("packet %d is of ICMP type %d", k, kind)
	}
	// The first octets of the data are the time.
	if data := p[len(p)-size+16:]; !bytes.Equal(data, bytes.Repeat([]byte{0xa5}, size-16)) {
		t.Errorf("packet %d carries %x", k, data)
	}
}

func goodChecksums(p []byte) bool {
	if p[0]>>4 == 4 {
		return packet.Checksum(p[:20], 0) == 0 && packet.Checksum(p[20:], 0) == 0
	}
	return packet.Checksum(p[40:], packet.PseudoSum(p, packet.ProtoICMPv6, len(p)-40)) == 0
}

// kind is the ICMP type of the version of IP.
func (want echoes) kind(version byte) byte {
	switch {
	case version == 4 && want.replies:
		return 0
	case version == 4:
		return 8
	case want.replies:
		return 129
	}
	return 128
}
