package dataplane_test

import (
	"bytes"
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
)

// tsharkSA is one row of Wireshark's table of ESP SAs.
type tsharkSA struct {
	family, src, dst, spi string
	cipher, key           string
	auth, authKey         string
}

const (
	interopGCMKey  = "0x6b87c452e0602b13e1925c2962e635ad7b9d3f7b"
	interopCBCKey  = "0x73bb90ac97e947c7bbc0f55c6b3e17bd"
	interopAuthKey = "0x6734dc7dbbcdb6256bbac5ea53d3a259aca9e3e10562873837e36c56dc8ec1be"

	tsharkGCM  = "AES-GCM with 16 octet ICV [RFC4106]"
	tsharkCBC  = "AES-CBC [RFC3602]"
	tsharkHMAC = "HMAC-SHA-256-128 [RFC4868]"
)

// TestInteropTshark lets Wireshark's dissector decrypt what we seal: each
// family and suite, raw and in UDP. It verifies the ICV, too.
func TestInteropTshark(t *testing.T) {
	needTshark(t)
	for _, c := range []struct {
		name           string
		src, dst, port string
		inA, inB       string
		gcm            bool
	}{
		{"4in4 gcm", "192.0.2.1", "192.0.2.2", "", "10.1.0.1", "10.2.0.1", true},
		{"4in4 cbc", "192.0.2.1", "192.0.2.2", "", "10.1.0.1", "10.2.0.1", false},
		{"4in4 udp gcm", "192.0.2.1", "192.0.2.2", "[4500]", "10.1.0.1", "10.2.0.1", true},
		{"6in6 gcm", "2001:db8::1", "2001:db8::2", "", "fd00:a::1", "fd00:b::1", true},
		{"6in6 cbc", "2001:db8::1", "2001:db8::2", "", "fd00:a::1", "fd00:b::1", false},
		{"6in6 udp cbc", "2001:db8::1", "2001:db8::2", "[4500]", "fd00:a::1", "fd00:b::1", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			sa := tsharkSA{"IPv4", c.src, c.dst, "0x00001001", tsharkGCM, interopGCMKey, "NULL", ""}
			suite := "-E aes-gcm-16 " + interopGCMKey
			if !c.gcm {
				sa.cipher, sa.key, sa.auth, sa.authKey = tsharkCBC, interopCBCKey, tsharkHMAC, interopAuthKey
				suite = "-E aes-cbc " + interopCBCKey + " -A hmac-sha2-256 " + interopAuthKey
			}
			if strings.Contains(c.src, ":") {
				sa.family = "IPv6"
			}
			proto := "esp"
			if c.port != "" {
				proto = "esp-udp"
			}
			e := newTestEngine(t)
			e.load(t, fmt.Sprintf(`add %s%s %s%s %s 0x1001 -m tunnel %s;
				spdadd %s %s any -P out ipsec esp/tunnel/%s-%s/require;`,
				c.src, c.port, c.dst, c.port, proto, suite, c.inA, c.inB, c.src, c.dst))
			var in [][]byte
			for n := range 40 {
				in = append(in, anyUDP(t, c.inA, c.inB, bytes.Repeat([]byte{byte(n)}, n*37)))
			}
			sealed, _ := e.send(in...)
			if len(sealed) != len(in) {
				t.Fatalf("%d of %d sealed", len(sealed), len(in))
			}
			for i, line := range tshark(t, sa, sealed) {
				want := fmt.Sprintf("%x", bytes.Repeat([]byte{byte(i)}, i*37))
				if line.data != want || !line.icvGood {
					t.Fatalf("packet %d: tshark sees %q (ICV good: %v), want %q", i, line.data, line.icvGood, want)
				}
			}
		})
	}
}

// A broken ICV is seen as such: the check above can fail.
func TestInteropTsharkSeesBadICV(t *testing.T) {
	needTshark(t)
	for name, c := range map[string]struct {
		suite string
		sa    tsharkSA
	}{
		"gcm": {"-E aes-gcm-16 " + interopGCMKey,
			tsharkSA{"IPv4", "192.0.2.1", "192.0.2.2", "0x00001001", tsharkGCM, interopGCMKey, "NULL", ""}},
		"cbc": {"-E aes-cbc " + interopCBCKey + " -A hmac-sha2-256 " + interopAuthKey,
			tsharkSA{"IPv4", "192.0.2.1", "192.0.2.2", "0x00001001", tsharkCBC, interopCBCKey, tsharkHMAC, interopAuthKey}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newTestEngine(t)
			e.load(t, `add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel `+c.suite+`;
				spdadd 10.1.0.1 10.2.0.1 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;`)
			sealed, _ := e.send(udp4("10.1.0.1", "10.2.0.1", 40))
			sealed[0][len(sealed[0])-1] ^= 1
			if tshark(t, c.sa, sealed)[0].icvGood {
				t.Error("tshark says that the ICV is good")
			}
		})
	}
}

// needTshark skips where there is none, unless tests against others are
// required.
func needTshark(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("tshark"); err == nil {
		return
	}
	if os.Getenv("IPSECD_INTEROP") == "required" || os.Getenv("IPSECD_E2E") == "required" {
		t.Fatal("no tshark: install Debian's package of that name")
	}
	t.Skip("no tshark: install Debian's package of that name")
}

// anyUDP is a UDP packet of either family, made by gopacket.
func anyUDP(t *testing.T, src, dst string, data []byte) []byte {
	t.Helper()
	udp := &layers.UDP{SrcPort: 9, DstPort: 9}
	var ip gopacket.NetworkLayer
	a, b := addr(src).Netip().AsSlice(), addr(dst).Netip().AsSlice()
	if len(a) == 4 {
		ip = &layers.IPv4{Version: 4, TTL: 64, Id: 7, Protocol: layers.IPProtocolUDP, SrcIP: a, DstIP: b}
	} else {
		ip = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: a, DstIP: b}
	}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, ip.(gopacket.SerializableLayer), udp, gopacket.Payload(data)); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// seen is what tshark says of a packet: the data of the innermost datagram in
// hex, and whether the ICV was good.
type seen struct {
	data    string
	icvGood bool
}

// tshark decrypts packets, which it reads from a file.
func tshark(t *testing.T, sa tsharkSA, pkts [][]byte) []seen {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sealed.pcap")
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
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	row := fmt.Sprintf("uat:esp_sa:%q,%q,%q,%q,%q,%q,%q,%q", sa.family, sa.src, sa.dst, sa.spi, sa.cipher, sa.key, sa.auth, sa.authKey)
	cmd := exec.Command("tshark", "-r", path, "-o", row,
		"-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE",
		"-d", "udp.port==9,data", "-T", "fields", "-e", "data.data", "-e", "esp.icv_good")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	var all []seen
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(f) != 2 {
			t.Fatalf("tshark prints %q", line)
		}
		all = append(all, seen{f[0], f[1] == "1" || f[1] == "True"})
	}
	if len(all) != len(pkts) {
		t.Fatalf("tshark sees %d of %d packets", len(all), len(pkts))
	}
	return all
}
