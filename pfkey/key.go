package pfkey

import (
	"fmt"
	"io"
)

// String says how long the key is and nothing else.
func (k Key) String() string { return fmt.Sprintf("key of %d bits, not shown", k.Bits) }

// Format makes every verb, %x and %#v too, print what String does.
func (k Key) Format(s fmt.State, _ rune) { io.WriteString(s, k.String()) }

// MarshalText keeps the octets out of JSON, and so out of structured logs.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// ClearKeys zeroes the octets of the message's keys, for who is done with them.
func (m *Message) ClearKeys() {
	for _, k := range []*Key{m.AuthKey, m.EncKey} {
		if k != nil {
			clear(k.Data)
		}
	}
}
