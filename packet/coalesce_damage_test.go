package packet

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/gopacket/gopacket/layers"
)

// Packets that all bear the same damage do not join each other either.
func TestCoalesceAllDamaged(t *testing.T) {
	for name, spoil := range damage {
		udp := name == "no UDP checksum" || name == "UDP length"
		s := segment{udp: udp, ttl: 64, port: 80, flags: tcpACK, payload: pattern(60)}
		var in [][]byte
		for range 3 {
			p := s.build(t)
			spoil(p, classified(t, bytes.Clone(p)))
			in = append(in, p)
			s.seq += 60
			s.id++
		}
		out, bursts := coalesce(t, &Coalescer{UDP: true}, in)
		want := []int{1, 1, 1}
		if strings.HasPrefix(name, "reserved") { // which segmentation copies
			want = []int{3}
		}
		if !slices.Equal(bursts, want) {
			t.Errorf("%s: bursts of %v", name, bursts)
		}
		for i := range in {
			if !bytes.Equal(in[i], out[i]) {
				t.Errorf("%s: packet %d was\n%.90x, is\n%.90x", name, i, in[i], out[i])
			}
		}
	}
}

// A datagram that is shorter than its IP packet, the rest such that the sum over
// all of it comes out right, does not join.
func TestCoalesceShortUDPLength(t *testing.T) {
	s := segment{udp: true, ttl: 64, port: 80, payload: pattern(60)}
	var in [][]byte
	for range 2 {
		p := s.build(t)
		udp := p[IPv4HeaderLen:]
		binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)-8))
		udp[6], udp[7] = 0, 0
		binary.BigEndian.PutUint16(udp[6:], Checksum(udp, PseudoSum(p, ProtoUDP, len(udp))))
		in = append(in, p)
		s.id++
	}
	out, bursts := coalesce(t, &Coalescer{UDP: true}, in)
	if len(bursts) != 2 || !bytes.Equal(out[0], in[0]) || !bytes.Equal(out[1], in[1]) {
		t.Errorf("bursts of %v", bursts)
	}
}

// Options join only where they are the same, as timestamps of one tick are.
func TestCoalesceOptions(t *testing.T) {
	stamp := func(data string) []layers.TCPOption {
		return []layers.TCPOption{{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte(data)}}
	}
	for _, v6 := range []bool{false, true} {
		s := segment{v6: v6, ttl: 64, port: 80, flags: tcpACK, payload: pattern(40)}
		var in [][]byte
		for _, data := range []string{"ABCDEFGH", "ABCDEFGH", "ABCDEFGI", "ABCDEFGI", "BBCDEFGI"} {
			s.options = stamp(data)
			in = append(in, s.build(t))
			s.seq += 40
			s.id++
		}
		out, bursts := coalesce(t, new(Coalescer), in)
		if !slices.Equal(bursts, []int{2, 2, 1}) {
			t.Errorf("IPv6 %v: bursts of %v", v6, bursts)
		}
		for i := range in {
			if !bytes.Equal(in[i], out[i]) {
				t.Errorf("IPv6 %v: packet %d was\n%x, is\n%x", v6, i, in[i], out[i])
			}
		}
	}
}
