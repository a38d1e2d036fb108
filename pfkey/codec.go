package pfkey

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// MaxMessage is the longest message that is read or written, in octets.
const MaxMessage = 64 << 10

const (
	version    = 2 // PF_KEY_V2
	sizeofMsg  = 16
	sizeofExt  = 4
	unitOctets = 8 // lengths on the wire count these
)

// What is wrong with a message. Whoever serves answers EINVAL to each.
var (
	ErrLength    = errors.New("bad length")
	ErrVersion   = errors.New("not PF_KEY version 2")
	ErrExtension = errors.New("unknown extension")
	ErrDuplicate = errors.New("extension given twice")
	ErrMissing   = errors.New("extension missing")
	ErrValue     = errors.New("value that cannot be expressed")
)

// DecodeHeader decodes the 16 octets of sadb_msg alone, so that an error can be
// answered with the type, sequence number and pid of a message that is
// otherwise malformed. What follows the header is not looked at.
func DecodeHeader(b []byte) (Message, error) {
	if len(b) < sizeofMsg {
		return Message{}, fmt.Errorf("%w: %d octets are no header", ErrLength, len(b))
	}
	m := Message{
		Type:     b[1],
		Errno:    b[2],
		SAType:   b[3],
		Reserved: binary.NativeEndian.Uint16(b[6:]),
		Seq:      binary.NativeEndian.Uint32(b[8:]),
		PID:      binary.NativeEndian.Uint32(b[12:]),
	}
	if b[0] != version {
		return m, fmt.Errorf("%w: version %d", ErrVersion, b[0])
	}
	return m, nil
}

// Decode decodes one message that fills b, at most MaxMessage octets. The
// message does not alias b, and of one that is refused no key stays. Errors wrap one of the Err values of this package.
func Decode(b []byte) (*Message, error) {
	m, err := DecodeHeader(b)
	if err != nil {
		return nil, err
	}
	units := int(binary.NativeEndian.Uint16(b[4:]))
	if len(b) > MaxMessage || len(b) != units*unitOctets {
		return nil, fmt.Errorf("%w: %d octets, header says %d", ErrLength, len(b), units*unitOctets)
	}
	if err := m.decodeExtensions(b[sizeofMsg:]); err != nil {
		m.ClearKeys()
		return nil, err
	}
	return &m, nil
}

func (m *Message) decodeExtensions(rest []byte) error {
	var seen [256]bool
	for len(rest) > 0 {
		n := int(binary.NativeEndian.Uint16(rest)) * unitOctets
		number := binary.NativeEndian.Uint16(rest[2:])
		if n == 0 || n > len(rest) {
			return fmt.Errorf("%w: extension %d of %d octets where %d are left", ErrLength, number, n, len(rest))
		}
		if err := m.decodeExtension(number, rest[:n], &seen); err != nil {
			return err
		}
		rest = rest[n:]
	}
	if m.NATT != nil && !(seen[ExtNATTType] && seen[ExtNATTSPort] && seen[ExtNATTDPort]) {
		return fmt.Errorf("%w: the NAT-T type and both ports go together", ErrMissing)
	}
	return nil
}

// decodeExtension decodes e, extension header included.
func (m *Message) decodeExtension(number uint16, e []byte, seen *[256]bool) error {
	x := lookup(number)
	if x == nil {
		return fmt.Errorf("%w %d", ErrExtension, number)
	}
	if seen[number] {
		return fmt.Errorf("%w: %d", ErrDuplicate, number)
	}
	seen[number] = true
	if len(e) < x.size {
		return fmt.Errorf("%w: extension %d has %d octets, at least %d belong there", ErrLength, number, len(e), x.size)
	}
	if err := x.decode(m, e); err != nil {
		return fmt.Errorf("extension %d: %w", number, err)
	}
	return nil
}

// Append appends the message to dst, extensions in the order of the kernels'
// dumps: SA SA2 REPLAY HARD SOFT CURRENT SRC DST KEY_AUTH KEY_ENCRYPT NAT_T...,
// and SRC DST POLICY. It fails, with an error that wraps ErrValue or ErrLength,
// on what the wire has no room for; dst's octets are then left as they were.
func (m *Message) Append(dst []byte) ([]byte, error) {
	start := len(dst)
	dst = append(dst, version, m.Type, m.Errno, m.SAType, 0, 0)
	dst = binary.NativeEndian.AppendUint16(dst, m.Reserved)
	dst = binary.NativeEndian.AppendUint32(dst, m.Seq)
	dst = binary.NativeEndian.AppendUint32(dst, m.PID)
	for i := range extensions {
		var err error
		if dst, err = extensions[i].appendTo(dst, m); err != nil {
			return nil, fmt.Errorf("extension %d: %w", extensions[i].number, err)
		}
		if len(dst)-start > MaxMessage {
			return nil, fmt.Errorf("%w: more than %d octets", ErrLength, MaxMessage)
		}
	}
	binary.NativeEndian.PutUint16(dst[start+4:], uint16((len(dst)-start)/unitOctets))
	return dst, nil
}

// appendTo appends one extension, padded; nothing where the message has none.
// That it fits is left to Append.
func (x *extension) appendTo(dst []byte, m *Message) ([]byte, error) {
	start := len(dst)
	dst = append(dst, 0, 0)
	dst = binary.NativeEndian.AppendUint16(dst, x.number)
	dst, err := x.append(dst, m)
	if err != nil {
		return nil, err
	}
	if len(dst) == start+sizeofExt {
		return dst[:start], nil
	}
	for (len(dst)-start)%unitOctets != 0 {
		dst = append(dst, 0)
	}
	binary.NativeEndian.PutUint16(dst[start:], uint16((len(dst)-start)/unitOctets))
	return dst, nil
}

// padded is n rounded up to whole units.
func padded(n int) int { return (n + unitOctets - 1) &^ (unitOctets - 1) }
