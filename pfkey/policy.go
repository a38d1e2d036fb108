package pfkey

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
)

// scopeGlobal is the scope of every policy of ours; FreeBSD also has policies
// of one interface (2) and of one socket (4).
const scopeGlobal = 1

const sizeofRequest = 8

// sadb_x_policy: type u16, dir u8, scope u8, id u32, priority u32, requests.
func decodePolicy(m *Message, e []byte) error {
	if scope := e[7]; scope > scopeGlobal {
		return fmt.Errorf("%w: policy of scope %d", ErrValue, scope)
	}
	p := &Policy{
		Type:     binary.NativeEndian.Uint16(e[4:]),
		Dir:      e[6],
		ID:       binary.NativeEndian.Uint32(e[8:]),
		Priority: binary.NativeEndian.Uint32(e[12:]),
	}
	for rest := e[16:]; len(rest) > 0; {
		if len(rest) < sizeofRequest {
			return fmt.Errorf("%w: request is cut short", ErrLength)
		}
		n := int(binary.NativeEndian.Uint16(rest))
		if n < sizeofRequest || n > len(rest) {
			return fmt.Errorf("%w: request of %d octets where %d are left", ErrLength, n, len(rest))
		}
		r, err := decodeRequest(rest[:n])
		if err != nil {
			return err
		}
		p.Requests = append(p.Requests, r)
		rest = rest[n:]
	}
	m.Policy = p
	return nil
}

// decodeRequest decodes sadb_x_ipsecrequest: len u16 in octets, proto u16, mode
// u8, level u8, reqid u16, then both sockaddrs or none.
func decodeRequest(b []byte) (Request, error) {
	r := Request{
		Proto: binary.NativeEndian.Uint16(b[2:]),
		Mode:  b[4],
		Level: b[5],
		Reqid: uint32(binary.NativeEndian.Uint16(b[6:])),
	}
	if len(b) == sizeofRequest {
		return r, nil
	}
	src, rest, err := sockaddr(b[sizeofRequest:])
	if err != nil {
		return r, err
	}
	dst, rest, err := sockaddr(rest)
	if err != nil {
		return r, err
	}
	if len(rest) > 0 {
		return r, fmt.Errorf("%w: %d octets after the ends of a request", ErrLength, len(rest))
	}
	if src.Port() != 0 || dst.Port() != 0 {
		return r, fmt.Errorf("%w: ports in the ends of a request", ErrValue)
	}
	r.Src, r.Dst = src.Addr(), dst.Addr()
	return r, r.checkEnds()
}

func appendPolicy(dst []byte, m *Message) ([]byte, error) {
	p := m.Policy
	if p == nil {
		return dst, nil
	}
	dst = binary.NativeEndian.AppendUint16(dst, p.Type)
	dst = append(dst, p.Dir, scopeGlobal)
	dst = binary.NativeEndian.AppendUint32(dst, p.ID)
	dst = binary.NativeEndian.AppendUint32(dst, p.Priority)
	for i := range p.Requests {
		var err error
		if dst, err = appendRequest(dst, &p.Requests[i]); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

func appendRequest(dst []byte, r *Request) ([]byte, error) {
	if r.Reqid > math.MaxUint16 {
		return nil, fmt.Errorf("%w: reqid %d of a request has more than 16 bits", ErrValue, r.Reqid)
	}
	if err := r.checkEnds(); err != nil {
		return nil, err
	}
	start := len(dst)
	dst = append(dst, 0, 0)
	dst = binary.NativeEndian.AppendUint16(dst, r.Proto)
	dst = append(dst, r.Mode, r.Level)
	dst = binary.NativeEndian.AppendUint16(dst, uint16(r.Reqid))
	for _, end := range []netip.Addr{r.Src, r.Dst} {
		if !end.IsValid() {
			continue
		}
		var err error
		if dst, err = appendSockaddr(dst, netip.AddrPortFrom(end, 0)); err != nil {
			return nil, err
		}
	}
	binary.NativeEndian.PutUint16(dst[start:], uint16(len(dst)-start))
	return dst, nil
}

// checkEnds fails unless a request has no end or two of one family. Mixed ends
// would not fill whole units.
func (r *Request) checkEnds() error {
	if r.Src.BitLen() != r.Dst.BitLen() {
		return fmt.Errorf("%w: the ends of a request are of two families", ErrValue)
	}
	return nil
}
