package packet

import "testing"

// TestTransportAt wants what RFC 4303 3.1.1 shows: in front of ESP is what nodes
// on the way look at.
func TestTransportAt(t *testing.T) {
	ports := []byte{0x12, 0x34, 0x56, 0x78}
	tests := []struct {
		name       string
		pkt        []byte
		at, nextAt int
	}{
		{"v4", v4(ProtoTCP, 0, 0, ports...), 20, 9},
		{"v4 options", v4(ProtoTCP, 0, 12, ports...), 32, 9},
		{"v6", v6(ProtoTCP, ports...), 40, 6},
		{"v6 hop-by-hop", v6(ProtoHopByHop, join(ext(ProtoTCP, 1), ports)...), 56, 40},
		{"v6 routing", v6(ProtoRouting, join(ext(ProtoTCP, 0), ports)...), 48, 40},
		{"v6 destination options", v6(ProtoDstOpts, join(ext(ProtoTCP, 0), ports)...), 40, 6},
		{"v6 destination options before routing", v6(ProtoDstOpts, join(ext(ProtoRouting, 0), ext(ProtoTCP, 0), ports)...), 56, 48},
		{"v6 destination options on both sides of routing",
			v6(ProtoDstOpts, join(ext(ProtoRouting, 0), ext(ProtoDstOpts, 1), ext(ProtoTCP, 0), ports)...), 64, 48},
		{"v6 atomic fragment", v6(ProtoHopByHop, join(ext(ProtoFragment, 0), fragment(ProtoTCP, 0, false), ports)...), 56, 48},
		{"v6 without payload", v6(ProtoHopByHop, ext(ProtoNoNext, 0)...), 48, 40},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := Burst{Head: tt.pkt}
			if d := b.Classify(); d != Kept {
				t.Fatal(d)
			}
			if at, nextAt := b.H.TransportAt(tt.pkt); at != tt.at || nextAt != tt.nextAt {
				t.Errorf("at %d, named at %d; want %d and %d", at, nextAt, tt.at, tt.nextAt)
			}
		})
	}
}
