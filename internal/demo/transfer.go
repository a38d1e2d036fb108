package demo

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"ipsecd/internal/netns"
)

const (
	blockSize   = 1 << 20
	dialTimeout = 10 * time.Second
)

// errDiffers says that data arrived otherwise than sent.
var errDiffers = errors.New("the data received is not the data sent")

// transfer moves data from host A to host B through the tunnel and shows some of
// the packets that did it.
func (d *demo) transfer(ctx context.Context, t tunnel) error {
	s, err := startSample(d.hosts[0].ns, wireLink)
	if err != nil {
		return err
	}
	defer s.close()
	r, err := transfer(ctx, d.hosts[0].ns, d.hosts[1].ns, t.inner[1], d.bytes)
	if err != nil {
		return err
	}
	if err := d.printSample(s); err != nil {
		return err
	}
	d.printf("  sent      %d octets, SHA-256 %x\n", r.sent.octets, r.sent.sum)
	d.printf("  received  %d octets, SHA-256 %x\n", r.received.octets, r.received.sum)
	if r.sent != r.received {
		return errDiffers
	}
	d.printf("  equal; %.2f s, %.2f Gbit/s\n", r.took.Seconds(), r.rate()/1e9)
	return nil
}

// stream is what one end of a transfer saw pass.
type stream struct {
	octets int64
	sum    [sha256.Size]byte
}

type result struct {
	sent, received stream
	took           time.Duration // from the first octet sent to the last received
}

// rate is in bit/s.
func (r result) rate() float64 { return float64(8*r.received.octets) / r.took.Seconds() }

// transfer sends octets of pseudo-random data over one TCP connection, from a
// socket in one namespace to one that listens on addr in the other.
func transfer(ctx context.Context, from, to *netns.NS, addr netip.Addr, octets int64) (r result, err error) {
	l, err := to.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		return r, err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	defer l.Close()

	received := make(chan error, 1)
	go func() {
		var err error
		r.received, err = receive(ctx, l)
		received <- err
	}()

	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := from.Dial(dialCtx, "tcp", l.Addr().String())
	if err != nil {
		return r, abandon(l, received, err)
	}
	defer context.AfterFunc(ctx, func() { c.Close() })()
	start := time.Now()
	sent, err := send(c, octets)
	err = errors.Join(err, c.Close())
	if err != nil {
		return r, abandon(l, received, err)
	}
	err = <-received
	r.sent, r.took = sent, time.Since(start)
	return r, err
}

// abandon waits for a receiver that got less than it could hope for.
func abandon(l net.Listener, received <-chan error, err error) error {
	l.Close()
	<-received
	return err
}

// send writes octets of data to c. The data repeats one random block with a
// counter in it, so that no block equals another.
func send(c io.Writer, octets int64) (s stream, err error) {
	block := make([]byte, blockSize)
	rand.Read(block)
	hash := sha256.New()
	for s.octets < octets {
		binary.BigEndian.PutUint64(block, uint64(s.octets))
		piece := block[:min(blockSize, octets-s.octets)]
		hash.Write(piece)
		n, err := c.Write(piece)
		s.octets += int64(n)
		if err != nil {
			return s, fmt.Errorf("after %d octets: %w", s.octets, err)
		}
	}
	hash.Sum(s.sum[:0])
	return s, nil
}

// receive accepts one connection and reads it to its end.
func receive(ctx context.Context, l net.Listener) (s stream, err error) {
	c, err := l.Accept()
	if err != nil {
		return s, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	hash := sha256.New()
	s.octets, err = io.CopyBuffer(hash, struct{ io.Reader }{c}, make([]byte, blockSize))
	hash.Sum(s.sum[:0])
	return s, err
}
