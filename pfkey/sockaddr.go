package pfkey

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Address families and sizes of BSD sockaddrs:
//
//	sockaddr_in:  len u8 = 16, family u8, port BE16, address 4, zero 8
//	sockaddr_in6: len u8 = 28, family u8, port BE16, flowinfo 4, address 16, scope 4
const (
	afInet  = 2
	afInet6 = 28

	sizeofInet  = 16
	sizeofInet6 = 28
)

// sockaddr decodes the sockaddr that b begins with and returns what follows.
func sockaddr(b []byte) (netip.AddrPort, []byte, error) {
	if len(b) < 2 || len(b) < int(b[0]) {
		return netip.AddrPort{}, nil, fmt.Errorf("%w: sockaddr is cut short", ErrLength)
	}
	sa, rest := b[:b[0]], b[b[0]:]
	switch {
	case b[1] == afInet && len(sa) == sizeofInet:
		addr := netip.AddrFrom4([4]byte(sa[4:8]))
		return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(sa[2:])), rest, nil
	case b[1] == afInet6 && len(sa) == sizeofInet6:
		if binary.NativeEndian.Uint32(sa[24:]) != 0 {
			return netip.AddrPort{}, nil, fmt.Errorf("%w: address with a scope", ErrValue)
		}
		addr := netip.AddrFrom16([16]byte(sa[8:24]))
		return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(sa[2:])), rest, nil
	}
	return netip.AddrPort{}, nil, fmt.Errorf("%w: sockaddr of family %d with %d octets", ErrValue, b[1], len(sa))
}

func appendSockaddr(dst []byte, a netip.AddrPort) ([]byte, error) {
	addr := a.Addr()
	switch {
	case !addr.IsValid():
		return nil, fmt.Errorf("%w: no address", ErrValue)
	case addr.Zone() != "":
		return nil, fmt.Errorf("%w: address with a scope", ErrValue)
	case addr.Is4():
		dst = binary.BigEndian.AppendUint16(append(dst, sizeofInet, afInet), a.Port())
		dst = append(dst, addr.AsSlice()...)
		return append(dst, make([]byte, 8)...), nil
	}
	dst = binary.BigEndian.AppendUint16(append(dst, sizeofInet6, afInet6), a.Port())
	dst = append(dst, 0, 0, 0, 0)
	dst = append(dst, addr.AsSlice()...)
	return append(dst, 0, 0, 0, 0), nil
}
