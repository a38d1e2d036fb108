package control

import (
	"bytes"
	"io"
	"net"
	"testing"

	"ipsecd/crypto/alg"
	"ipsecd/pfkey"
	"ipsecd/sad"
	"ipsecd/spd"
)

// tape is a connection that reads messages from a list, and keeps the buffers
// that it was given.
type tape struct {
	net.Conn
	requests [][]byte
	in       []byte   // the reader's buffer
	out      [][]byte // the writer's
	keys     int      // in what was written
}

var secret = []byte("0123456789abcdefsalt")

func (c *tape) Read(b []byte) (int, error) {
	c.in = b
	if len(c.requests) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.requests[0])
	c.requests = c.requests[1:]
	return n, nil
}

func (c *tape) Write(b []byte) (int, error) {
	c.keys += bytes.Count(b, secret)
	c.out = append(c.out, b)
	return len(b), nil
}

// When the peer hangs up, no key is left in what it sent and was sent, nor in
// the SAs that it staged.
func TestServerKeepsNoKeys(t *testing.T) {
	e := New(Config{SAD: sad.New(), SPD: spd.New()})
	add := func(spi uint32) *pfkey.Message {
		return &pfkey.Message{
			Type: pfkey.ADD, SAType: pfkey.SATypeESP, SA: &pfkey.SA{SPI: spi, Enc: alg.AESGCM16},
			Src: address(here), Dst: address(there), EncKey: &pfkey.Key{Bits: 160, Data: secret},
		}
	}
	c := new(tape)
	for _, m := range []*pfkey.Message{add(0x1000), {Type: pfkey.BEGIN}, add(0x1001), {Type: pfkey.DUMP}} {
		b, err := m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		c.requests = append(c.requests, b)
	}
	if err := e.converse(c); err != io.EOF {
		t.Fatal(err)
	}
	if c.keys != 2 || len(c.out) != 5 {
		t.Fatalf("%d keys in %d answers", c.keys, len(c.out))
	}
	for _, b := range append(c.out, c.in) {
		if bytes.Contains(b[:cap(b)], secret) {
			t.Error("a buffer has a key")
		}
	}
}

// To fingerprint a key takes no more room than the copies of the keys do.
func TestFingerprintIsCheap(t *testing.T) {
	k, sa := newKeyUses(), newSA(t, 0x1000, there)
	if n := testing.AllocsPerRun(100, func() { k.fingerprint(sa) }); n > 2 {
		t.Errorf("%v allocations", n)
	}
}
