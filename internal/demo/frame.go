package demo

import (
	"fmt"
	"strings"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

const (
	shownOctets = 4      // of a ciphertext
	shownFrom   = 8 + 16 // past SPI, sequence number (RFC 4303 2) and the longest IV here
)

// frameLine describes an Ethernet frame in one line, as tcpdump would.
func frameLine(at time.Time, frame []byte) string {
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
	stamp := at.Format("15:04:05.000")
	network := packet.NetworkLayer()
	if network == nil {
		return fmt.Sprintf("%s %s, %d octets", stamp, layerNames(packet), len(frame))
	}
	src, dst := network.NetworkFlow().Endpoints()
	if udp, ok := packet.Layer(layers.LayerTypeUDP).(*layers.UDP); ok && isNATT(udp) {
		return fmt.Sprintf("%s %s.%d > %s.%d: UDP %s", stamp,
			src, udp.SrcPort, dst, udp.DstPort, espText(udp.Payload))
	}
	if packet.Layer(layers.LayerTypeIPSecESP) != nil {
		return fmt.Sprintf("%s %s > %s: %s", stamp, src, dst, espText(network.LayerPayload()))
	}
	return fmt.Sprintf("%s %s > %s: %s, %d octets", stamp, src, dst, layerNames(packet), len(frame))
}

func isNATT(udp *layers.UDP) bool { return udp.SrcPort == nattPort || udp.DstPort == nattPort }

// espText describes an ESP packet that starts at octets.
func espText(octets []byte) string {
	packet := gopacket.NewPacket(octets, layers.LayerTypeIPSecESP, gopacket.Default)
	esp, ok := packet.Layer(layers.LayerTypeIPSecESP).(*layers.IPSecESP)
	if !ok || len(octets) < shownFrom {
		return fmt.Sprintf("no ESP, %d octets", len(octets))
	}
	ciphertext := octets[shownFrom:]
	return fmt.Sprintf("ESP spi %#x seq %d len %d%s: %x..", esp.SPI, esp.Seq, len(octets),
		trainMark(len(octets)), ciphertext[:min(shownOctets, len(ciphertext))])
}

// trainMark marks a packet that segmentation offload still holds together: a
// capture sees the datagrams before they are cut apart.
func trainMark(octets int) string {
	if octets > wireMTU {
		return "*"
	}
	return ""
}

// layerNames lists what gopacket made of the frame.
func layerNames(packet gopacket.Packet) string {
	var names []string
	for _, l := range packet.Layers() {
		names = append(names, l.LayerType().String())
	}
	return strings.Join(names, "/")
}
