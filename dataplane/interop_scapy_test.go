package dataplane_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os/exec"
	"testing"

	"ipsecd/packet"
)

// TestInteropScapyOpens lets scapy's IPsec layer open what we seal, its ICV
// verified, and refuse each packet of which one bit of the ICV was changed.
func TestInteropScapyOpens(t *testing.T) {
	t.Parallel()
	scapy := startScapy(t)
	for _, c := range interopCases() {
		t.Run(c.String(), func(t *testing.T) {
			in := c.packets(t)
			sealed := c.seal(t, in)
			for i, p := range scapy.ask(t, "open", &c, sealed) {
				if !bytes.Equal(p.octets(t), in[i].octets) {
					t.Fatalf("packet %d:\n got %s %s\nwant %x", i, p.Octets, p.Error, in[i].octets)
				}
			}
			for i, p := range scapy.ask(t, "open", &c, flipICV(sealed, c.icvLen())) {
				if p.Error != "IPSecIntegrityError" {
					t.Fatalf("packet %d with a changed ICV: %q, %s", i, p.Error, p.Octets)
				}
			}
		})
	}
}

// TestInteropScapySeals opens what scapy seals, and drops each packet of which
// one bit of the ICV was changed.
func TestInteropScapySeals(t *testing.T) {
	t.Parallel()
	scapy := startScapy(t)
	for _, c := range interopCases() {
		t.Run(c.String(), func(t *testing.T) {
			in := octetsOf(c.packets(t))
			var sealed [][]byte
			for i, p := range scapy.ask(t, "seal", &c, in) {
				if p.Error != "" {
					t.Fatalf("scapy does not seal packet %d: %s", i, p.Error)
				}
				sealed = append(sealed, p.octets(t))
			}
			e := c.engine(t, "in")
			out := e.open(flipICV(sealed, c.icvLen())...)
			if len(out) != 0 || e.Drops.Get(packet.BadICV) != uint64(len(in)) {
				t.Fatalf("with changed ICVs %d of %d came out: %v", len(out), len(in), dropsOf(e))
			}
			out = e.open(sealed...)
			if len(out) != len(in) || len(dropsOf(e)) != 1 {
				t.Fatalf("%d of %d came out: %v", len(out), len(in), dropsOf(e))
			}
			for i := range in {
				if !bytes.Equal(out[i], in[i]) {
					t.Fatalf("packet %d:\n got %x\nwant %x", i, out[i], in[i])
				}
			}
		})
	}
}

// scapySA is an SA as testdata/interop/scapy_ipsec.py wants it.
type scapySA struct {
	SPI    uint32 `json:"spi"`
	Cipher string `json:"cipher"`
	Key    string `json:"key"`
	MAC    string `json:"mac"`
	MACKey string `json:"mackey"`
	Src    string `json:"src"`
	Dst    string `json:"dst"`
	Tunnel bool   `json:"tunnel"`
	UDP    int    `json:"udp"`
	ESN    bool   `json:"esn"`
	First  uint64 `json:"first"`
}

type scapyRequest struct {
	Verb    string   `json:"verb"`
	SA      scapySA  `json:"sa"`
	Packets []string `json:"packets"`
}

// scapyPacket is what became of one: its octets in hex, or an exception.
type scapyPacket struct{ Octets, Error string }

func (p scapyPacket) octets(t *testing.T) []byte {
	t.Helper()
	b, err := hex.DecodeString(p.Octets)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (c *interopCase) scapy() scapySA {
	sa := scapySA{
		SPI: c.spi, Cipher: c.cipher.scapy, Key: hex.EncodeToString(c.encKey), MAC: c.mac.scapy, MACKey: hex.EncodeToString(c.authKey),
		Src: c.outer.src, Dst: c.outer.dst, Tunnel: c.tunnel, ESN: c.esn, First: c.first(),
	}
	if c.udp {
		sa.UDP = interopPort
	}
	return sa
}

// scapyProcess is a Python that answers each line with a line.
type scapyProcess struct {
	to   *json.Encoder
	from *json.Decoder
}

// startScapy starts one that ends with the test.
func startScapy(t *testing.T) *scapyProcess {
	t.Helper()
	python := findScapy()
	if python == "" {
		missing(t, "no scapy: install Debian's packages python3-scapy and python3-cryptography")
	}
	var stderr bytes.Buffer
	cmd := exec.Command(python, "testdata/interop/scapy_ipsec.py")
	cmd.Env = append(cmd.Environ(), "HOME="+t.TempDir())
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, &stderr)
		}
	})
	return &scapyProcess{json.NewEncoder(stdin), json.NewDecoder(stdout)}
}

// findScapy returns a Python that has scapy's IPsec layer with its ciphers, or
// "". Debian installs it for its own, which need not be the first in the path.
func findScapy() string {
	const check = "import scapy.layers.ipsec, scapy.config; raise SystemExit(not scapy.config.conf.crypto_valid)"
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(python, "-c", check).Run() == nil {
			return python
		}
	}
	return ""
}

// ask has scapy seal or open packets under a case's SA, and returns what became
// of each.
func (s *scapyProcess) ask(t *testing.T, verb string, c *interopCase, pkts [][]byte) []scapyPacket {
	t.Helper()
	r := scapyRequest{Verb: verb, SA: c.scapy()}
	for _, p := range pkts {
		r.Packets = append(r.Packets, hex.EncodeToString(p))
	}
	var answer struct{ Packets []scapyPacket }
	if err := s.to.Encode(r); err != nil {
		t.Fatal(err)
	}
	if err := s.from.Decode(&answer); err != nil {
		t.Fatal(err) // what it said of its end is shown at the test's
	}
	if len(answer.Packets) != len(pkts) {
		t.Fatalf("scapy answers for %d of %d packets", len(answer.Packets), len(pkts))
	}
	return answer.Packets
}
