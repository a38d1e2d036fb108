package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"ipsecd/internal/netns"
)

const (
	pingCount    = 5
	pingInterval = 200 * time.Millisecond
	pingTimeout  = time.Second // for each reply
	pingPayload  = 56          // octets after the ICMP header
)

// ping pings host B from host A through the tunnel and shows what that is on the
// wire.
func (d *demo) ping(ctx context.Context, t tunnel) error {
	s, err := startSample(d.hosts[0].ns, wireLink)
	if err != nil {
		return err
	}
	defer s.close()
	p, err := newPinger(d.hosts[0].ns, t.inner[0], t.inner[1])
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.run(ctx, d.out); err != nil {
		return err
	}
	return d.printSample(s)
}

// pinger sends echo requests from one address to another. One goroutine may use
// it.
type pinger struct {
	*icmp.PacketConn
	to             *net.IPAddr
	id             int
	request, reply icmp.Type
	rtts           []time.Duration // of the replies
}

// newPinger opens a raw ICMP socket inside the namespace.
func newPinger(ns *netns.NS, from, to netip.Addr) (p *pinger, err error) {
	p = &pinger{to: &net.IPAddr{IP: to.AsSlice()}, id: rand.IntN(1 << 16)}
	network := "ip4:icmp"
	p.request, p.reply = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if to.Is6() {
		network = "ip6:ipv6-icmp"
		p.request, p.reply = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	err = ns.Do(func() error {
		p.PacketConn, err = icmp.ListenPacket(network, from.String())
		return err
	})
	return p, err
}

// run sends pingCount requests, prints what ping(8) would, and fails if a reply
// is missing.
func (p *pinger) run(ctx context.Context, out io.Writer) error {
	defer context.AfterFunc(ctx, func() { p.Close() })()
	for seq := 1; seq <= pingCount; seq++ {
		rtt, err := p.echo(seq)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			fmt.Fprintf(out, "  no reply from %s: icmp_seq=%d\n", p.to, seq)
		case err != nil:
			return err
		default:
			p.rtts = append(p.rtts, rtt)
			fmt.Fprintf(out, "  %d bytes from %s: icmp_seq=%d time=%s\n", 8+pingPayload, p.to, seq, millis(rtt))
		}
		select {
		case <-ctx.Done():
		case <-time.After(pingInterval):
		}
	}
	fmt.Fprintf(out, "  %s\n", p.summary())
	if lost := pingCount - len(p.rtts); lost > 0 {
		return fmt.Errorf("%d of %d packets lost", lost, pingCount)
	}
	return nil
}

// echo sends one request and waits for its reply.
func (p *pinger) echo(seq int) (time.Duration, error) {
	payload := binary.BigEndian.AppendUint64(make([]byte, 0, pingPayload), rand.Uint64())
	message := icmp.Message{
		Type: p.request,
		Body: &icmp.Echo{ID: p.id, Seq: seq, Data: payload[:pingPayload]},
	}
	octets, err := message.Marshal(nil) // the kernel sums ICMPv6 (RFC 3542 3.1)
	if err != nil {
		return 0, err
	}
	sent := time.Now()
	if err := p.SetReadDeadline(sent.Add(pingTimeout)); err != nil {
		return 0, err
	}
	if _, err := p.WriteTo(octets, p.to); err != nil {
		return 0, err
	}
	buf := make([]byte, 1500)
	for {
		n, from, err := p.ReadFrom(buf)
		if err != nil {
			return 0, err
		}
		if p.answers(buf[:n], from, seq) {
			return time.Since(sent), nil
		}
	}
}

// answers reports whether the message is the reply to the request seq.
func (p *pinger) answers(octets []byte, from net.Addr, seq int) bool {
	m, err := icmp.ParseMessage(p.reply.Protocol(), octets)
	if err != nil || m.Type != p.reply || from.String() != p.to.String() {
		return false
	}
	echo, ok := m.Body.(*icmp.Echo)
	return ok && echo.ID == p.id && echo.Seq == seq && len(echo.Data) == pingPayload
}

// summary is ping's last line.
func (p *pinger) summary() string {
	received := len(p.rtts)
	text := fmt.Sprintf("%d packets transmitted, %d received, %d%% packet loss",
		pingCount, received, 100*(pingCount-received)/pingCount)
	if received == 0 {
		return text
	}
	least, most, sum := p.rtts[0], p.rtts[0], time.Duration(0)
	for _, rtt := range p.rtts {
		least, most, sum = min(least, rtt), max(most, rtt), sum+rtt
	}
	return fmt.Sprintf("%s, rtt min/avg/max %.3f/%.3f/%s", text,
		inMillis(least), inMillis(sum/time.Duration(received)), millis(most))
}

func inMillis(d time.Duration) float64 { return d.Seconds() * 1000 }
func millis(d time.Duration) string    { return fmt.Sprintf("%.3f ms", inMillis(d)) }
