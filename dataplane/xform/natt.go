package xform

import (
	"ipsecd/packet"
	"ipsecd/sad"
)

// encapsulated reports whether ESP travels in UDP (RFC 3948 2.1).
func (f *frame) encapsulated() bool { return f.encap != (sad.Encap{}) }

// putUDP writes the header in front of ESP. Its checksum stays 0: the sending
// socket computes it.
func (f *frame) putUDP(udp []byte) {
	packet.PutUDP(udp, f.encap.SrcPort, f.encap.DstPort, len(udp))
}
