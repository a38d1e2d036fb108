package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const setkeyFiles = "../testdata/setkey"

// TestFiles reads the setkey files of testdata: those of ok parse and print
// back to themselves; those of bad fail with the text of the .err file beside
// them.
func TestFiles(t *testing.T) {
	for _, name := range glob(t, "ok/*.conf") {
		stmts, err := Parse(filepath.Base(name), read(t, name))
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		checkRoundTrip(t, stmts)
	}
	for _, name := range glob(t, "bad/*.conf") {
		_, err := Parse(filepath.Base(name), read(t, name))
		if err == nil {
			t.Errorf("%s was accepted", name)
			continue
		}
		want := strings.TrimSpace(string(read(t, strings.TrimSuffix(name, ".conf")+".err")))
		if err.Error() != want {
			t.Errorf("%s\ngot:\n%v\nwant:\n%s", name, err, want)
		}
	}
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(setkeyFiles, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return names
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzParse expects of any text that it does not crash the parser, that errors
// are bounded and in place, and that statements survive printing and reading.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"ok/*.conf", "bad/*.conf"} {
		for _, name := range glob(f, pattern) {
			f.Add(read(f, name))
		}
	}
	f.Add([]byte("spdadd 10.0.0.0/8[ssh] ::[any] icmp 3,4 -P out ipsec esp/tunnel/::1-::2/unique:3;\r\n#\x00\"\n;exit"))
	f.Add([]byte("update 192.0.2.1[1] 192.0.2.2 esp-udp 256; update ::1 ::2 esp 256 -m transport -f zero-pad -esn -E null -A hmac-sha1 \"\";"))
	f.Add([]byte("spdupdate 10.0.0.0/8 ::/0 any -P in ipsec esp/transport//unique; spdupdate ::/0 ::/0 any -P out ipsec esp/transport/::1-::2"))
	f.Fuzz(func(t *testing.T, src []byte) {
		stmts, err := Parse("f", src)
		checkRoundTrip(t, stmts)
		if err == nil {
			return
		}
		errs := err.(Errors)
		if len(errs) == 0 || len(errs) > maxErrors {
			t.Fatalf("%d errors", len(errs))
		}
		lines := strings.Count(string(src), "\n") + 1
		for _, e := range errs {
			if e.Line < 1 || e.Line > lines || e.Col < 1 || e.Col > len(src)+1 || e.Msg == "" {
				t.Fatalf("%+v", e)
			}
		}
	})
}
