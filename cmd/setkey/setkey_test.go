package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ipsecd/internal/pfclient/pfclienttest"
	"ipsecd/pfkey"
)

const gcmAdd = "add 192.0.2.1 192.0.2.2 esp 0x1000 -E aes-gcm-16 0x3031323334353637383940414243444546474849;\n"

type result struct {
	status   int
	out, err string
}

func setkey(std streams, socket string, args ...string) result {
	var out, errs bytes.Buffer
	std.out, std.err = &out, &errs
	if std.in == nil {
		std.in = strings.NewReader("")
	}
	status := run(args, socket, std)
	return result{status, out.String(), errs.String()}
}

func check(t *testing.T, got, want result) {
	t.Helper()
	if d := cmp.Diff(want, got, cmp.AllowUnexported(result{})); d != "" {
		t.Error(d)
	}
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "f.conf")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// types are the requests that a server saw, by name.
func types(s *pfclienttest.Server) string {
	var names []string
	for _, m := range s.Seen() {
		names = append(names, pfkey.TypeName(m.Type))
	}
	return strings.Join(names, " ")
}

func TestOptions(t *testing.T) {
	for args, want := range map[string]string{
		"":              "setkey: nothing to do; see the usage below\n" + usage,
		"-x":            "setkey: unknown option -x; see the usage below\n" + usage,
		"-D extra":      "setkey: unexpected argument \"extra\"; see the usage below\n" + usage,
		"-D -":          "setkey: unexpected argument \"-\"; see the usage below\n" + usage,
		"-D -- extra":   "setkey: unexpected argument \"extra\"; see the usage below\n" + usage,
		"-f":            "setkey: -f needs an argument; see the usage below\n" + usage,
		"-D -S":         "setkey: -S needs an argument; see the usage below\n" + usage,
		"-P":            "setkey: -P alone does nothing; give -D -P to print policies or -F -P to remove them\n",
		"-DF":           "setkey: -D and -F do not go together; give one of -f, -c, -D and -F\n",
		"-cfx":          "setkey: -c and -f do not go together; give one of -f, -c, -D and -F\n",
		"-f a -f b":     "setkey: -f is given twice; load one file at a time\n",
		"-P -f a":       "setkey: -P does not go with -f; it goes with -D or -F\n",
		"-cP":           "setkey: -P does not go with -c; it goes with -D or -F\n",
		"-f /nowhere/f": "setkey: open /nowhere/f: no such file or directory\n",
	} {
		t.Run(args, func(t *testing.T) {
			check(t, setkey(streams{}, "/nowhere/s", strings.Fields(args)...), result{1, "", want})
		})
	}
	check(t, setkey(streams{}, "", "-h"), result{0, usage, ""})
}

func TestSocketOfOptionBeforeEnvironment(t *testing.T) {
	s := pfclienttest.Start(t, pfclienttest.Echo)
	check(t, setkey(streams{}, "/nowhere/s", "-FS"+s.Path), result{})
	check(t, setkey(streams{}, s.Path, "-F", "-P"), result{})
	if got := types(s); got != "FLUSH SPDFLUSH" {
		t.Error(got)
	}
}

func TestDeadSocket(t *testing.T) {
	check(t, setkey(streams{}, "/nowhere/s", "-D"), result{1, "",
		"setkey: ipsecd does not answer on /nowhere/s: no such file or directory; is it running?" +
			" start it with `ipsecd run`, or name its socket by -S or $IPSECD_SOCKET\n"})
}

func TestFileIsOneTransaction(t *testing.T) {
	s := pfclienttest.Start(t, pfclienttest.Echo)
	text := "flush; spdflush;\n" + gcmAdd + "spdadd 10.0.0.0/8 10.0.0.0/8 any -P out discard;\n"
	check(t, setkey(streams{}, s.Path, "-f", file(t, text)), result{})
	if got := types(s); got != "BEGIN FLUSH SPDFLUSH ADD SPDADD COMMIT" {
		t.Error(got)
	}
	if key := s.Seen()[3].EncKey; key == nil || key.Bits != 160 {
		t.Errorf("key %v", key)
	}
}

func TestStandardInput(t *testing.T) {
	for _, args := range [][]string{{"-c"}, {"-f", "-"}, {"-f-"}} {
		s := pfclienttest.Start(t, pfclienttest.Echo)
		in := strings.NewReader("flush;\nspdflush;\n")
		check(t, setkey(streams{in: in}, s.Path, args...), result{})
		if got := types(s); got != "BEGIN FLUSH SPDFLUSH COMMIT" {
			t.Error(got)
		}
	}
}

func TestSyntaxErrorInstallsNothing(t *testing.T) {
	s := pfclienttest.Start(t, pfclienttest.Echo)
	name := file(t, "flush;\nspdflus;\nget 10.0.0.1 10.0.0.2 esp 7;\n")
	got := setkey(streams{}, s.Path, "-f", name)
	lines := strings.SplitAfter(got.err, "\n")
	if got.status != 1 || len(lines) != 3 || !strings.HasPrefix(lines[0], name+":2:1: \"spdflus\" is not") ||
		!strings.HasPrefix(lines[1], name+":3:27: the SPI \"7\"") {
		t.Errorf("%+v", got)
	}
	if got := types(s); got != "" {
		t.Errorf("the daemon was asked: %s", got)
	}
}

func TestRefusals(t *testing.T) {
	refuse := map[uint8]syscall.Errno{
		pfkey.ADD: syscall.EEXIST, pfkey.SPDADD: syscall.EEXIST, pfkey.GET: syscall.ESRCH,
		pfkey.DELETE: syscall.ENOENT, pfkey.SPDDELETE: syscall.EINVAL, pfkey.FLUSH: syscall.EINVAL,
		pfkey.UPDATE: syscall.ENOENT, pfkey.SPDUPDATE: syscall.EOPNOTSUPP,
	}
	s := pfclienttest.Start(t, func(m *pfkey.Message) []*pfkey.Message {
		errno, ok := refuse[m.Type]
		if !ok {
			return pfclienttest.Echo(m)
		}
		r := pfclienttest.Refuse(m, uint8(errno))
		if m.Type == pfkey.SPDDELETE || m.Type == pfkey.SPDUPDATE {
			r[0].Text = "not today"
		}
		return r
	})
	const policy = "10.0.0.0/8 10.0.0.0/8 any -P in none;\n"
	text := gcmAdd + "spdadd " + policy + "get 192.0.2.1 192.0.2.2 esp 256; delete 192.0.2.1 192.0.2.2 esp 256;\n" +
		"spddelete " + policy + "flush;\nupdate" + gcmAdd[3:] + "spdupdate " + policy + "spdflush;\n"
	check(t, setkey(streams{in: strings.NewReader(text)}, s.Path, "-c"), result{1, "", "" +
		"stdin:1:1: an SA with this SPI, protocol and destination exists already; delete it first, or take another SPI\n" +
		"stdin:2:1: a policy with this selector and direction exists already; spddelete it first\n" +
		"stdin:3:1: No entry\n" +
		"stdin:3:34: No entry\n" +
		"stdin:4:1: not today\n" +
		"stdin:5:1: ipsecd finds the statement invalid\n" +
		"stdin:6:1: no SA has this SPI, protocol, source and destination; add it\n" +
		"stdin:7:1: not today\n"})
	if got := types(s); got != "BEGIN ADD SPDADD GET DELETE SPDDELETE FLUSH UPDATE SPDUPDATE SPDFLUSH COMMIT" {
		t.Error(got)
	}
}

func TestDaemonGoesAway(t *testing.T) {
	s := pfclienttest.Start(t, func(m *pfkey.Message) []*pfkey.Message {
		if m.Type == pfkey.SPDFLUSH {
			return []*pfkey.Message{nil}
		}
		return pfclienttest.Echo(m)
	})
	got := setkey(streams{in: strings.NewReader("flush;\nspdflush;\nspddump;\n")}, s.Path, "-c")
	if got.status != 1 || !strings.HasPrefix(got.err, "setkey: stdin:2:1: ipsecd does not answer on "+s.Path) {
		t.Errorf("%+v", got)
	}
}

func TestEmptyDatabases(t *testing.T) {
	s := pfclienttest.Start(t, func(m *pfkey.Message) []*pfkey.Message {
		return pfclienttest.Refuse(m, uint8(syscall.ENOENT))
	})
	check(t, setkey(streams{}, s.Path, "-D"), result{0, "No SAD entries.\n", ""})
	check(t, setkey(streams{}, s.Path, "-DP"), result{0, "No SPD entries.\n", ""})
}

func TestDump(t *testing.T) {
	s := pfclienttest.Start(t, func(m *pfkey.Message) (out []*pfkey.Message) {
		for i := range uint32(2) {
			out = append(out, &pfkey.Message{Type: m.Type, SAType: pfkey.SATypeESP, Seq: 1 - i, PID: m.PID,
				SA: &pfkey.SA{SPI: 256 + i, State: pfkey.StateMature}, Policy: &pfkey.Policy{Dir: pfkey.DirIn, ID: i}})
		}
		return out
	})
	got := setkey(streams{}, s.Path, "-D")
	if got.status != 0 || strings.Count(got.out, "state=mature \n") != 2 || !strings.Contains(got.out, "spi=257(0x00000101)") {
		t.Errorf("%+v", got)
	}
	got = setkey(streams{}, s.Path, "-PD")
	if got.status != 0 || strings.Count(got.out, "\tin discard\n") != 2 || !strings.Contains(got.out, "\tspid=1 seq=0 ") {
		t.Errorf("%+v", got)
	}
}

func TestPrintsInAFile(t *testing.T) {
	s := pfclienttest.Start(t, func(m *pfkey.Message) []*pfkey.Message {
		if m.Type == pfkey.SPDDUMP {
			return pfclienttest.Refuse(m, uint8(syscall.ENOENT))
		}
		return pfclienttest.Echo(m)
	})
	got := setkey(streams{in: strings.NewReader("get 192.0.2.1 192.0.2.2 esp 256; spddump;")}, s.Path, "-c")
	if got.status != 0 || !strings.HasPrefix(got.out, "192.0.2.1 192.0.2.2\n\tesp ") || !strings.HasSuffix(got.out, "No SPD entries.\n") {
		t.Errorf("%+v", got)
	}
}

func TestTerminal(t *testing.T) {
	s := pfclienttest.Start(t, func(m *pfkey.Message) []*pfkey.Message {
		if m.Type == pfkey.DUMP || m.Type == pfkey.SPDDUMP {
			return pfclienttest.Refuse(m, uint8(syscall.ENOENT))
		}
		return pfclienttest.Echo(m)
	})
	in := strings.NewReader("\nflush\n;\nspdflus;\ndump\n; spddump;\n\nexit;\nflush;\n")
	got := setkey(streams{in: in, terminal: true}, s.Path, "-c")
	if got.status != 1 || !strings.HasPrefix(got.err, "stdin:4:1: \"spdflus\" is not a known statement") {
		t.Errorf("%+v", got)
	}
	if got := types(s); got != "BEGIN FLUSH COMMIT BEGIN DUMP SPDDUMP COMMIT" {
		t.Error(got)
	}
}

func TestTerminalEndsInsideStatement(t *testing.T) {
	s := pfclienttest.Start(t, pfclienttest.Echo)
	check(t, setkey(streams{in: strings.NewReader("flush;\nspdflush"), terminal: true}, s.Path, "-c"),
		result{1, "", "stdin:2:9: the last statement does not end; put a ; behind it\n"})
	if got := types(s); got != "BEGIN FLUSH COMMIT" {
		t.Error(got)
	}
}

// That the daemon refuses a transaction as a whole is told under the name of the
// text, and does not end a session at a terminal.
func TestRefusedCommit(t *testing.T) {
	refusing := func(text string) *pfclienttest.Server {
		return pfclienttest.Start(t, func(m *pfkey.Message) []*pfkey.Message {
			if m.Type != pfkey.COMMIT {
				return pfclienttest.Echo(m)
			}
			r := pfclienttest.Refuse(m, uint8(syscall.EEXIST))
			r[0].Text = text
			return r
		})
	}
	name := file(t, "flush;\n")
	check(t, setkey(streams{}, refusing("not now").Path, "-f", name), result{1, "", name + ": not now\n"})
	check(t, setkey(streams{in: strings.NewReader("flush;")}, refusing("").Path, "-c"), result{1, "", "stdin: COMMIT: file exists\n"})

	s := refusing("not now")
	check(t, setkey(streams{in: strings.NewReader("flush;\nspdflush;\n"), terminal: true}, s.Path, "-c"),
		result{1, "", "stdin: not now\nstdin: not now\n"})
	if got := types(s); got != "BEGIN FLUSH COMMIT BEGIN SPDFLUSH COMMIT" {
		t.Error(got)
	}
}
