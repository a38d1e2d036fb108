package dataplane

import (
	"ipsecd/packet"
	"ipsecd/sad"
)

// InnerMTU is the longest packet that fits, sealed under sa, into a packet of mtu
// octets on the wire. In transport mode, where the packet keeps its header, that
// is one without options or extension headers.
func InnerMTU(sa *sad.SA, mtu int) int {
	header := packet.IPv4HeaderLen
	if sa.Spec().Dst.Is6() {
		header = packet.IPv6HeaderLen
	}
	mtu -= header
	if sa.Encap() != (sad.Encap{}) {
		mtu -= packet.UDPHeaderLen
	}
	inner := sa.Suite.PayloadFor(mtu)
	if sa.Spec().Mode == sad.ModeTransport {
		inner += header
	}
	return inner
}
