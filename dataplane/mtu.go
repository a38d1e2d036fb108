package dataplane

import (
	"ipsecd/packet"
	"ipsecd/sad"
)

// InnerMTU is the longest packet that fits, sealed under sa, into an outer
// packet of mtu octets.
func InnerMTU(sa *sad.SA, mtu int) int {
	s := sa.Spec()
	mtu -= packet.IPv4HeaderLen
	if s.Dst.Is6() {
		mtu -= packet.IPv6HeaderLen - packet.IPv4HeaderLen
	}
	if s.Encap != (sad.Encap{}) {
		mtu -= packet.UDPHeaderLen
	}
	return sa.Suite.PayloadFor(mtu)
}
