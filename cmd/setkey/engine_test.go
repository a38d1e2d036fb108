package main

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"ipsecd/control"
	"ipsecd/sad"
	"ipsecd/spd"
)

// startEngine serves the daemon's own key engine on a socket, without a data
// plane.
func startEngine(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "control.sock")
	l, err := control.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	e := control.New(control.Config{SAD: sad.New(), SPD: spd.New(), NATTPort: 4500})
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := e.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	return socket
}

const tunnel = `flush; spdflush;
add 192.0.2.1 192.0.2.2 esp 0x1000 -m tunnel -r 64 -u 7 -E aes-gcm-16 "0123456789abcdefsalt";
add 192.0.2.2[4500] 192.0.2.1[4500] esp-udp 0x1001 -m tunnel -E aes-cbc "0123456789abcdef"
	-A hmac-sha2-256 "0123456789abcdef0123456789abcdef";
spdadd 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:7;
spdadd 10.2.0.0/24 10.1.0.7[ssh] tcp -P in none;
`

const updates = `update 192.0.2.1 192.0.2.2 esp 0x1000 -m transport -f zero-pad -esn
	-E null -A hmac-sha1 "01234567890123456789";
update 192.0.2.2[4500] 192.0.2.1[61001] esp-udp 0x1001;
update 192.0.2.2[4500] 192.0.2.1[61001] esp-udp 0x1002;
update 192.0.2.1 192.0.2.2 esp-udp 0x1000;
spdupdate 10.1.0.0/24 10.2.0.0/24 any -P out ipsec esp/transport//unique;
spdupdate 10.2.0.0/24 10.1.0.7[ssh] tcp -P in ipsec esp/tunnel/2001:db8::1-2001:db8::2/require;
dump; spddump;
`

func TestEngine(t *testing.T) {
	socket := startEngine(t)
	load := func() { check(t, setkey(streams{}, socket, "-f", file(t, tunnel)), result{}) }
	load()
	load() // the flushes make room

	got := setkey(streams{}, socket, "-D")
	for _, want := range []string{
		"192.0.2.1 192.0.2.2\n\tesp mode=tunnel spi=4096(0x00001000) reqid=7(0x00000007)\n" +
			"\tE: aes-gcm-16  30313233 34353637 38396162 63646566 73616c74\n" +
			"\tseq=0x00000000 replay=64 flags=0x00000000 state=mature \n",
		"192.0.2.2[4500] 192.0.2.1[4500]\n\tesp-udp mode=tunnel spi=4097(0x00001001) reqid=0(0x00000000)\n",
	} {
		if !strings.Contains(got.out, want) {
			t.Errorf("want\n%s\ngot status %d, %s\n%s", want, got.status, got.err, got.out)
		}
	}
	got = setkey(streams{}, socket, "-DP")
	for _, want := range []string{
		"10.1.0.0/24[any] 10.2.0.0/24[any] any\n\tout ipsec\n\tesp/tunnel/192.0.2.1-192.0.2.2/unique:7\n",
		"10.2.0.0/24[any] 10.1.0.7[22] tcp\n\tin none\n",
	} {
		if !strings.Contains(got.out, want) {
			t.Errorf("want\n%s\ngot status %d, %s\n%s", want, got.status, got.err, got.out)
		}
	}

	in := strings.NewReader(tunnel[strings.Index(tunnel, "spdadd"):] + "delete 192.0.2.1 192.0.2.2 esp 0x1002;")
	got = setkey(streams{in: in}, socket, "-c")
	if got.status != 1 || strings.Count(got.err, "stdin:") != 3 || !strings.HasSuffix(got.err, "stdin:3:1: No entry\n") {
		t.Errorf("%+v", got)
	}

	in = strings.NewReader(updates)
	got = setkey(streams{in: in}, socket, "-c")
	if want := "stdin:4:1: no SA has this SPI, protocol, source and destination; add it\n" +
		"stdin:5:1: the SA is not encapsulated in UDP, and an update without keys cannot make it so; give the keys again to replace it\n"; got.err != want {
		t.Errorf("status %d, %s", got.status, got.err)
	}
	for _, want := range []string{
		"192.0.2.1 192.0.2.2\n\tesp mode=transport spi=4096(0x00001000) reqid=0(0x00000000)\n\tE: null \n\tA: hmac-sha1  30313233 ",
		" replay=0 flags=0x00000600 state=mature \n",
		"192.0.2.2[4500] 192.0.2.1[61001]\n\tesp-udp mode=tunnel ",
		"10.1.0.0/24[any] 10.2.0.0/24[any] any\n\tout ipsec\n\tesp/transport//unique#16384\n",
		"10.2.0.0/24[any] 10.1.0.7[22] tcp\n\tin ipsec\n\tesp/tunnel/2001:db8::1-2001:db8::2/require\n",
	} {
		if !strings.Contains(got.out, want) {
			t.Errorf("want\n%s\ngot\n%s", want, got.out)
		}
	}

	check(t, setkey(streams{}, socket, "-F"), result{})
	check(t, setkey(streams{}, socket, "-FP"), result{})
	check(t, setkey(streams{}, socket, "-D"), result{0, "No SAD entries.\n", ""})
	check(t, setkey(streams{}, socket, "-DP"), result{0, "No SPD entries.\n", ""})
}
