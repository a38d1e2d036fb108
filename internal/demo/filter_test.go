package demo

import (
	"net"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/net/bpf"
)

var (
	mac = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	ip4 = net.IPv4(192, 0, 2, 1).To4()
	ip6 = net.ParseIP("2001:db8::1")
)

// frame builds an Ethernet frame of the layers.
func frame(t *testing.T, etherType layers.EthernetType, rest ...gopacket.SerializableLayer) []byte {
	t.Helper()
	all := append([]gopacket.SerializableLayer{
		&layers.Ethernet{SrcMAC: mac, DstMAC: mac, EthernetType: etherType},
	}, rest...)
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, all...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func v4(t *testing.T, proto layers.IPProtocol, rest ...gopacket.SerializableLayer) []byte {
	t.Helper()
	return frame(t, layers.EthernetTypeIPv4,
		append([]gopacket.SerializableLayer{&layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: ip4, DstIP: ip4}}, rest...)...)
}

// v4Options is v4 with a header of 24 octets.
func v4Options(t *testing.T, proto layers.IPProtocol, rest ...gopacket.SerializableLayer) []byte {
	t.Helper()
	return frame(t, layers.EthernetTypeIPv4, append([]gopacket.SerializableLayer{&layers.IPv4{
		Version: 4, TTL: 64, Protocol: proto, SrcIP: ip4, DstIP: ip4,
		Options: []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}},
	}}, rest...)...)
}

func v6(t *testing.T, next layers.IPProtocol, rest ...gopacket.SerializableLayer) []byte {
	t.Helper()
	return frame(t, layers.EthernetTypeIPv6,
		append([]gopacket.SerializableLayer{&layers.IPv6{Version: 6, HopLimit: 64, NextHeader: next, SrcIP: ip6, DstIP: ip6}}, rest...)...)
}

func udp(src, dst layers.UDPPort) gopacket.SerializableLayer {
	return &layers.UDP{SrcPort: src, DstPort: dst}
}

func icmp6(typ uint8) gopacket.SerializableLayer {
	return gopacket.Payload{typ, 0, 0, 0, 0, 0, 0, 0}
}

// hopByHop is the header of (units+1)*8 octets, filled by PadN.
func hopByHop(next layers.IPProtocol, units int) gopacket.SerializableLayer {
	b := make([]byte, 8*(units+1))
	b[0], b[1], b[2], b[3] = byte(next), byte(units), 1, byte(len(b)-4)
	return gopacket.Payload(b)
}

// espPayload is an ESP packet of 36 octets: SPI 0x1001, sequence number 1.
var espPayload = gopacket.Payload{
	0, 0, 0x10, 1, 0, 0, 0, 1,
	1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
	17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28,
}

const (
	isInClear = iota + 1
	isProtected
	isNeighbour
)

func TestFilter(t *testing.T) {
	const (
		esp, udpp = layers.IPProtocolESP, layers.IPProtocolUDP
		icmpv6    = layers.IPProtocolICMPv6
		hop       = layers.IPProtocolIPv6HopByHop
	)
	laterFragment := v4(t, udpp, udp(4500, 4500), espPayload)
	laterFragment[14+6], laterFragment[14+7] = 0, 100
	for _, tt := range []struct {
		name  string
		frame []byte
		want  int
	}{
		{"ARP", frame(t, layers.EthernetTypeARP, gopacket.Payload(make([]byte, 28))), isNeighbour},
		{"other EtherType", frame(t, layers.EthernetTypeLLC+0x88cc, gopacket.Payload(make([]byte, 60))), isInClear},

		{"ESP on IPv4", v4(t, esp, espPayload), isProtected},
		{"ESP on IPv4 with options", v4Options(t, esp, espPayload), isProtected},
		{"UDP to 4500", v4(t, udpp, udp(5000, 4500), espPayload), isProtected},
		{"UDP from 4500", v4(t, udpp, udp(4500, 5000), espPayload), isProtected},
		{"UDP to 4500 behind options", v4Options(t, udpp, udp(1, 4500), espPayload), isProtected},
		{"UDP, other ports", v4(t, udpp, udp(4499, 4501), espPayload), isInClear},
		{"UDP, 4500 where options shift the ports", v4Options(t, udpp, udp(1, 2), espPayload), isInClear},
		{"later fragment of UDP", laterFragment, isInClear},
		{"TCP", v4(t, layers.IPProtocolTCP, gopacket.Payload(make([]byte, 20))), isInClear},
		{"TCP with port 4500", v4(t, layers.IPProtocolTCP, gopacket.Payload{0x11, 0x94, 0x11, 0x94, 0, 0}), isInClear},
		{"ICMP", v4(t, layers.IPProtocolICMPv4, gopacket.Payload(make([]byte, 8))), isInClear},
		{"IPv4 in IPv4", v4(t, layers.IPProtocolIPv4, gopacket.Payload(make([]byte, 40))), isInClear},
		{"AH", v4(t, layers.IPProtocolAH, gopacket.Payload(make([]byte, 40))), isInClear},

		{"ESP on IPv6", v6(t, esp, espPayload), isProtected},
		{"UDP to 4500 on IPv6", v6(t, udpp, udp(5000, 4500), espPayload), isProtected},
		{"UDP from 4500 on IPv6", v6(t, udpp, udp(4500, 5000), espPayload), isProtected},
		{"UDP on IPv6, other ports", v6(t, udpp, udp(4499, 4501), espPayload), isInClear},
		{"TCP on IPv6", v6(t, layers.IPProtocolTCP, gopacket.Payload(make([]byte, 20))), isInClear},
		{"IPv6 in IPv6", v6(t, layers.IPProtocolIPv6, gopacket.Payload(make([]byte, 60))), isInClear},
		{"echo request", v6(t, icmpv6, icmp6(128)), isInClear},
		{"echo reply", v6(t, icmpv6, icmp6(129)), isInClear},
		{"MLD query", v6(t, icmpv6, icmp6(130)), isNeighbour},
		{"router solicitation", v6(t, icmpv6, icmp6(133)), isNeighbour},
		{"neighbour solicitation", v6(t, icmpv6, icmp6(135)), isNeighbour},
		{"neighbour advertisement", v6(t, icmpv6, icmp6(136)), isNeighbour},
		{"redirect", v6(t, icmpv6, icmp6(137)), isInClear},
		{"MLDv2 report", v6(t, icmpv6, icmp6(143)), isNeighbour},
		{"MLDv2 report behind a router alert", v6(t, hop, hopByHop(icmpv6, 0), icmp6(143)), isNeighbour},
		{"MLD query behind long options", v6(t, hop, hopByHop(icmpv6, 2), icmp6(130)), isNeighbour},
		{"echo request behind options", v6(t, hop, hopByHop(icmpv6, 0), icmp6(128)), isInClear},
		{"TCP behind options", v6(t, hop, hopByHop(layers.IPProtocolTCP, 0), icmp6(143)), isInClear},
		{"destination unreachable", v6(t, icmpv6, icmp6(1)), isInClear},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := runFilter(t, tt.frame); got != tt.want {
				t.Errorf("verdict %d, want %d", got, tt.want)
			}
		})
	}
}

func runFilter(t *testing.T, frame []byte) int {
	t.Helper()
	program, err := filter(verdicts{inClear: isInClear, protected: isProtected, neighbour: isNeighbour})
	if err != nil {
		t.Fatal(err)
	}
	// The VM's result is how much of the frame passes: make all of it count.
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	got, err := vm.Run(frame)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestAssembleRefuses(t *testing.T) {
	back := []any{label("start"), bpf.LoadConstant{}, jump{bpf.JumpEqual, 0, "start"}}
	unknown := []any{jump{bpf.JumpEqual, 0, "nowhere"}, bpf.RetConstant{}}
	for _, program := range [][]any{back, unknown} {
		if _, err := assemble(program); err == nil {
			t.Errorf("no error for %v", program)
		}
	}
}
