package dataplane_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"ipsecd/packet"
)

// TestInteropTshark lets Wireshark's dissector decrypt what we seal, its ICV
// verified, and see each ICV of which one bit was changed. Its table of SAs has
// no extended sequence numbers (in 4.0), so these are scapy's alone.
func TestInteropTshark(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("tshark"); err != nil {
		missing(t, "no tshark: install Debian's package of that name")
	}
	var cases []interopCase
	var in [][]interopPacket
	var capture [][]byte
	for _, c := range interopCases() {
		if c.esn {
			continue
		}
		pkts := c.packets(t)
		sealed := c.seal(t, pkts)
		cases, in = append(cases, c), append(in, pkts)
		capture = append(append(capture, sealed...), flipICV(sealed, c.icvLen())...)
	}
	seen := tshark(t, cases, capture)
	for i, c := range cases {
		n := len(in[i])
		good, bad := seen[:n], seen[n:2*n]
		seen = seen[2*n:]
		t.Run(c.String(), func(t *testing.T) {
			for k := range n {
				if good[k].icv != icvGood || bad[k].icv != icvBad {
					t.Fatalf("packet %d: the ICV is %s, when changed %s", k, good[k].icv, bad[k].icv)
				}
				c.checkDecrypted(t, in[i][k], good[k].decrypted)
			}
		})
	}
}

// checkDecrypted wants of the decrypted octets the packet, or what follows the
// head of it in transport mode, and padding that is RFC 4303's: counted up from
// 1, and no more than it takes to end on a block.
func (c *interopCase) checkDecrypted(t *testing.T, p interopPacket, decrypted []byte) {
	t.Helper()
	want, next := p.octets, byte(packet.ProtoIPv4)
	switch {
	case !c.tunnel:
		want, next = p.octets[p.head:], p.next
	case c.inner.v6():
		next = packet.ProtoIPv6
	}
	block := 4
	if c.cipher.name == "aes-cbc" {
		block = 16
	}
	pad := block - 1 - (len(want)+1)%block
	want = bytes.Clone(want)
	for i := range pad {
		want = append(want, byte(i+1))
	}
	want = append(want, byte(pad), next)
	if !bytes.Equal(decrypted, want) {
		t.Fatalf("tshark decrypts\n     %x\nwant %x", decrypted, want)
	}
}

const (
	icvGood = "good"
	icvBad  = "bad"
)

// tsharkPacket is what tshark says of an ESP packet.
type tsharkPacket struct {
	decrypted []byte // with padding and trailer, without ICV
	icv       string
}

// tshark decrypts a capture, which it reads from a file, with the SAs of the
// cases.
func tshark(t *testing.T, cases []interopCase, pkts [][]byte) []tsharkPacket {
	t.Helper()
	args := []string{"-r", writePcap(t, pkts),
		"-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE",
		"-T", "fields", "-e", "esp.decrypted_data", "-e", "esp.icv_good", "-e", "esp.icv_bad"}
	for _, c := range cases {
		args = append(args, "-o", c.tsharkSA())
	}
	cmd := exec.Command("tshark", args...)
	cmd.Env = append(cmd.Environ(), "HOME="+t.TempDir())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	var all []tsharkPacket
	for line := range strings.Lines(string(out)) {
		all = append(all, parseTshark(t, strings.TrimRight(line, "\n")))
	}
	if len(all) != len(pkts) {
		t.Fatalf("tshark sees %d of %d packets: %s", len(all), len(pkts), stderr.String())
	}
	return all
}

// tsharkSA is the case's row of Wireshark's table of ESP SAs.
func (c *interopCase) tsharkSA() string {
	hex := func(key []byte) string {
		if len(key) == 0 {
			return ""
		}
		return fmt.Sprintf("%#x", key)
	}
	family := "IPv4"
	if c.outer.v6() {
		family = "IPv6"
	}
	return fmt.Sprintf("uat:esp_sa:%q,%q,%q,%q,%q,%q,%q,%q", family, c.outer.src, c.outer.dst, fmt.Sprintf("%#08x", c.spi),
		c.cipher.tshark, hex(c.encKey), c.mac.tshark, hex(c.authKey))
}

// parseTshark takes a line of the fields that were asked for.
func parseTshark(t *testing.T, line string) tsharkPacket {
	t.Helper()
	f := strings.Split(line, "\t")
	if len(f) != 3 {
		t.Fatalf("tshark prints %q", line)
	}
	decrypted, err := hex.DecodeString(f[0])
	if err != nil {
		t.Fatalf("tshark prints %q: %v", line, err)
	}
	p := tsharkPacket{decrypted: decrypted, icv: "not checked"}
	set := func(s string) bool { return s == "1" || s == "True" }
	switch {
	case set(f[1]) && !set(f[2]):
		p.icv = icvGood
	case set(f[2]) && !set(f[1]):
		p.icv = icvBad
	}
	return p
}

// writePcap makes a file of IP packets.
func writePcap(t *testing.T, pkts [][]byte) string {
	t.Helper()
	var file bytes.Buffer
	w := pcapgo.NewWriter(&file)
	if err := w.WriteFileHeader(65535, layers.LinkTypeRaw); err != nil {
		t.Fatal(err)
	}
	for _, p := range pkts {
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), CaptureLength: len(p), Length: len(p)}, p); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "sealed.pcap")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
