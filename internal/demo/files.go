package demo

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"strings"
)

// A tunnel joins one inner address of host A with one of host B. Index 0 is A
// and 1 is B wherever there are two of something.
type tunnel struct {
	title string // what the packets between the hosts look like
	reqid int
	spi   [2]uint32     // of the SA that starts at A, at B
	outer [2]netip.Addr // the hosts' addresses on the wire
	inner [2]netip.Addr // the addresses of the tunnel's ends
	suite suite
	natt  bool // UDP encapsulation on nattPort
}

// nattPort is the UDP port of both ends (RFC 3948).
const nattPort = 4500

// suite writes the algorithm part of an add statement, with a new key each time.
type suite func() string

// gcm is AES-GCM-16 with a key of 256 bits and the salt of 32.
func gcm() string { return "-E aes-gcm-16 " + key(32+4) }

// cbcHMAC is AES-CBC with HMAC-SHA-256-128, both with keys of 256 bits.
func cbcHMAC() string {
	return "-E aes-cbc " + key(32) + "\n    -A hmac-sha2-256 " + key(32)
}

func key(octets int) string {
	b := make([]byte, octets)
	rand.Read(b)
	return fmt.Sprintf("0x%x", b)
}

// setkeyFiles returns the setkey files of the hosts A and B: the same SAs in
// both, and policies that each sees from its own side.
func setkeyFiles(tunnels []tunnel) (files [2]string) {
	var text [2]strings.Builder
	for i := range text {
		text[i].WriteString("flush;\nspdflush;\n")
	}
	for _, t := range tunnels {
		sas := t.add(0, 1) + t.add(1, 0)
		for i := range text {
			fmt.Fprintf(&text[i], "\n# %s\n%s%s%s", t.title, sas,
				t.spdadd(i, 1-i, "out"), t.spdadd(1-i, i, "in"))
		}
	}
	for i := range text {
		files[i] = text[i].String()
	}
	return files
}

// add is the statement of the SA between two hosts.
func (t tunnel) add(from, to int) string {
	proto, port := "esp", ""
	if t.natt {
		proto, port = "esp-udp", fmt.Sprintf("[%d]", nattPort)
	}
	return fmt.Sprintf("add %s%s %s%s %s %#x -m tunnel -r 128 -u %d\n    %s;\n",
		t.outer[from], port, t.outer[to], port, proto, t.spi[from], t.reqid, t.suite())
}

// spdadd is the statement of the policy for packets between the two ends.
func (t tunnel) spdadd(from, to int, dir string) string {
	return fmt.Sprintf("spdadd %s %s any -P %s ipsec\n    esp/tunnel/%s-%s/unique:%d;\n",
		single(t.inner[from]), single(t.inner[to]), dir, t.outer[from], t.outer[to], t.reqid)
}

// single is the prefix of the address alone.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
