package pfkey

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// extension is one row of the table below.
type extension struct {
	number uint16
	size   int // least octets, header included

	// decode reads e, header included, at least size octets, into m.
	decode func(m *Message, e []byte) error
	// append writes what follows the header; nothing where m has none of it.
	append func(dst []byte, m *Message) ([]byte, error)
}

// extensions is in the order of the wire.
var extensions = [...]extension{
	{ExtSA, 16, decodeSA, appendSA},
	{ExtSA2, 16, decodeSA2, appendSA2},
	{ExtSAReplay, 8, decodeReplay, appendReplay},
	lifetime(ExtLifetimeHard, func(m *Message) **Lifetime { return &m.Hard }),
	lifetime(ExtLifetimeSoft, func(m *Message) **Lifetime { return &m.Soft }),
	lifetime(ExtLifetimeCurrent, func(m *Message) **Lifetime { return &m.Current }),
	address(ExtAddressSrc, func(m *Message) **Address { return &m.Src }),
	address(ExtAddressDst, func(m *Message) **Address { return &m.Dst }),
	key(ExtKeyAuth, func(m *Message) **Key { return &m.AuthKey }),
	key(ExtKeyEncrypt, func(m *Message) **Key { return &m.EncKey }),
	{ExtNATTType, 8, decodeNATTType, appendNATTType},
	nattPort(ExtNATTSPort, func(n *NATT) *uint16 { return &n.SrcPort }),
	nattPort(ExtNATTDPort, func(n *NATT) *uint16 { return &n.DstPort }),
	address(ExtNATTOAI, func(m *Message) **Address { return &m.OAI }),
	address(ExtNATTOAR, func(m *Message) **Address { return &m.OAR }),
	{ExtPolicy, 16, decodePolicy, appendPolicy},
	supported(ExtSupportedAuth, func(m *Message) *[]SupportedAlg { return &m.SupAuth }),
	supported(ExtSupportedEnc, func(m *Message) *[]SupportedAlg { return &m.SupEnc }),
	{ExtErrorText, 8, decodeText, appendText},
}

func lookup(number uint16) *extension {
	for i := range extensions {
		if extensions[i].number == number {
			return &extensions[i]
		}
	}
	return nil
}

// exactly fails unless e has n octets.
func exactly(e []byte, n int) error {
	if len(e) == n {
		return nil
	}
	return fmt.Errorf("%w: %d octets, not %d", ErrLength, len(e), n)
}

// sadb_sa: spi BE32, replay u8, state u8, auth u8, encrypt u8, flags u32.
func decodeSA(m *Message, e []byte) error {
	m.SA = &SA{
		SPI:    binary.BigEndian.Uint32(e[4:]),
		Replay: e[8],
		State:  e[9],
		Auth:   e[10],
		Enc:    e[11],
		Flags:  binary.NativeEndian.Uint32(e[12:]),
	}
	return exactly(e, 16)
}

func appendSA(dst []byte, m *Message) ([]byte, error) {
	if m.SA == nil {
		return dst, nil
	}
	dst = binary.BigEndian.AppendUint32(dst, m.SA.SPI)
	dst = append(dst, m.SA.Replay, m.SA.State, m.SA.Auth, m.SA.Enc)
	return binary.NativeEndian.AppendUint32(dst, m.SA.Flags), nil
}

// sadb_x_sa2: mode u8, reserved 3, sequence u32, reqid u32.
func decodeSA2(m *Message, e []byte) error {
	m.SA2 = &SA2{
		Mode:     e[4],
		Sequence: binary.NativeEndian.Uint32(e[8:]),
		Reqid:    binary.NativeEndian.Uint32(e[12:]),
	}
	return exactly(e, 16)
}

func appendSA2(dst []byte, m *Message) ([]byte, error) {
	if m.SA2 == nil {
		return dst, nil
	}
	dst = append(dst, m.SA2.Mode, 0, 0, 0)
	dst = binary.NativeEndian.AppendUint32(dst, m.SA2.Sequence)
	return binary.NativeEndian.AppendUint32(dst, m.SA2.Reqid), nil
}

// sadb_x_sa_replay: replay u32, in packets.
func decodeReplay(m *Message, e []byte) error {
	window := binary.NativeEndian.Uint32(e[4:])
	m.Replay = &window
	return exactly(e, 8)
}

func appendReplay(dst []byte, m *Message) ([]byte, error) {
	if m.Replay == nil {
		return dst, nil
	}
	return binary.NativeEndian.AppendUint32(dst, *m.Replay), nil
}

// lifetime is sadb_lifetime: allocations u32, bytes u64, addtime u64, usetime
// u64.
func lifetime(number uint16, field func(*Message) **Lifetime) extension {
	decode := func(m *Message, e []byte) error {
		*field(m) = &Lifetime{
			Allocations: binary.NativeEndian.Uint32(e[4:]),
			Bytes:       binary.NativeEndian.Uint64(e[8:]),
			AddTime:     binary.NativeEndian.Uint64(e[16:]),
			UseTime:     binary.NativeEndian.Uint64(e[24:]),
		}
		return exactly(e, 32)
	}
	encode := func(dst []byte, m *Message) ([]byte, error) {
		l := *field(m)
		if l == nil {
			return dst, nil
		}
		dst = binary.NativeEndian.AppendUint32(dst, l.Allocations)
		dst = binary.NativeEndian.AppendUint64(dst, l.Bytes)
		dst = binary.NativeEndian.AppendUint64(dst, l.AddTime)
		return binary.NativeEndian.AppendUint64(dst, l.UseTime), nil
	}
	return extension{number, 32, decode, encode}
}

// address is sadb_address: proto u8, prefixlen u8, reserved u16, sockaddr.
func address(number uint16, field func(*Message) **Address) extension {
	decode := func(m *Message, e []byte) error {
		a, rest, err := sockaddr(e[8:])
		if err != nil {
			return err
		}
		*field(m) = &Address{Proto: e[4], PrefixLen: e[5], Addr: a.Addr(), Port: a.Port()}
		return exactly(e, padded(len(e)-len(rest)))
	}
	encode := func(dst []byte, m *Message) ([]byte, error) {
		a := *field(m)
		if a == nil {
			return dst, nil
		}
		dst = append(dst, a.Proto, a.PrefixLen, 0, 0)
		return appendSockaddr(dst, netip.AddrPortFrom(a.Addr, a.Port))
	}
	return extension{number, 8 + sizeofInet, decode, encode}
}

// key is sadb_key: bits u16, reserved u16, octets.
func key(number uint16, field func(*Message) **Key) extension {
	decode := func(m *Message, e []byte) error {
		bits := binary.NativeEndian.Uint16(e[4:])
		n := (int(bits) + 7) / 8
		if err := exactly(e, padded(8+n)); err != nil {
			return err
		}
		*field(m) = &Key{Bits: bits, Data: append([]byte{}, e[8:8+n]...)}
		return nil
	}
	encode := func(dst []byte, m *Message) ([]byte, error) {
		k := *field(m)
		if k == nil {
			return dst, nil
		}
		if len(k.Data) != (int(k.Bits)+7)/8 {
			return nil, fmt.Errorf("%w: %d key bits in %d octets", ErrLength, k.Bits, len(k.Data))
		}
		dst = binary.NativeEndian.AppendUint16(dst, k.Bits)
		return append(append(dst, 0, 0), k.Data...), nil
	}
	return extension{number, 8, decode, encode}
}

// sadb_x_nat_t_type: type u8, reserved 3.
func decodeNATTType(m *Message, e []byte) error {
	m.natt().Type = e[4]
	return exactly(e, 8)
}

func appendNATTType(dst []byte, m *Message) ([]byte, error) {
	if m.NATT == nil {
		return dst, nil
	}
	return append(dst, m.NATT.Type, 0, 0, 0), nil
}

// nattPort is sadb_x_nat_t_port: port BE16, reserved u16.
func nattPort(number uint16, field func(*NATT) *uint16) extension {
	decode := func(m *Message, e []byte) error {
		*field(m.natt()) = binary.BigEndian.Uint16(e[4:])
		return exactly(e, 8)
	}
	encode := func(dst []byte, m *Message) ([]byte, error) {
		if m.NATT == nil {
			return dst, nil
		}
		return append(binary.BigEndian.AppendUint16(dst, *field(m.NATT)), 0, 0), nil
	}
	return extension{number, 8, decode, encode}
}

// natt returns m.NATT, made where it was absent.
func (m *Message) natt() *NATT {
	if m.NATT == nil {
		m.NATT = new(NATT)
	}
	return m.NATT
}

// supported is sadb_supported, reserved u32 and then the algorithms: id u8,
// ivlen u8, minbits u16, maxbits u16, reserved u16.
func supported(number uint16, field func(*Message) *[]SupportedAlg) extension {
	decode := func(m *Message, e []byte) error {
		list := []SupportedAlg{}
		for e = e[8:]; len(e) > 0; e = e[8:] {
			list = append(list, SupportedAlg{
				ID:      e[0],
				IVLen:   e[1],
				MinBits: binary.NativeEndian.Uint16(e[2:]),
				MaxBits: binary.NativeEndian.Uint16(e[4:]),
			})
		}
		*field(m) = list
		return nil
	}
	encode := func(dst []byte, m *Message) ([]byte, error) {
		list := *field(m)
		if list == nil {
			return dst, nil
		}
		dst = append(dst, 0, 0, 0, 0)
		for _, a := range list {
			dst = append(dst, a.ID, a.IVLen)
			dst = binary.NativeEndian.AppendUint16(dst, a.MinBits)
			dst = binary.NativeEndian.AppendUint16(dst, a.MaxBits)
			dst = append(dst, 0, 0)
		}
		return dst, nil
	}
	return extension{number, 8, decode, encode}
}

func decodeText(m *Message, e []byte) error {
	m.Text = strings.TrimRight(string(e[sizeofExt:]), "\x00")
	return nil
}

func appendText(dst []byte, m *Message) ([]byte, error) { return append(dst, m.Text...), nil }
