package packet

import (
	"encoding/binary"
	"math/bits"
)

// Sum adds b to a running one's complement sum (RFC 1071) and returns the new
// sum, unfolded. An odd last octet counts as the high half of a word, so only
// the last piece of a packet may be odd.
//
// It adds eight octets at a time in native order; Fold puts that right, since
// the one's complement sum is independent of byte order (RFC 1071 2.B).
func Sum(b []byte, sum uint64) uint64 {
	var carry uint64
	for len(b) >= 32 {
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(b), 0)
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(b[8:]), carry)
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(b[16:]), carry)
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(b[24:]), carry)
		sum += carry
		b = b[32:]
	}
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(b), 0)
		sum += carry
		b = b[8:]
	}
	if len(b) == 0 {
		return sum
	}
	var tail [8]byte
	copy(tail[:], b)
	sum, carry = bits.Add64(sum, binary.NativeEndian.Uint64(tail[:]), 0)
	return sum + carry
}

// Fold reduces a sum to the 16 bits that stand in a header, not complemented,
// in host order of a big-endian field: binary.BigEndian.PutUint16 writes it.
func Fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>32 + sum&0xffffffff
	s := uint32(sum)
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], uint16(s))
	return binary.BigEndian.Uint16(b[:])
}

// Checksum is the Internet checksum of b on top of sum.
func Checksum(b []byte, sum uint64) uint16 { return ^Fold(Sum(b, sum)) }

// PseudoSum is the sum of the pseudo-header (RFC 9293 3.1, RFC 8200 8.1) of an
// upper-layer packet of n octets; ip is the IP header it stands behind.
func PseudoSum(ip []byte, proto uint8, n int) uint64 {
	var tail [8]byte
	binary.BigEndian.PutUint32(tail[:], uint32(n))
	tail[7] = proto
	if ip[0]>>4 == 4 {
		return Sum(tail[:], Sum(ip[12:20], 0))
	}
	return Sum(tail[:], Sum(ip[8:40], 0))
}
