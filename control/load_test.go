package control_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const script = `#!/sbin/setkey -f
flush; spdflush;
add 192.0.2.1 198.51.100.2 esp 0x1000 -m tunnel -E aes-gcm-16 0x0102030405060708090a0b0c0d0e0f1011121314;
add 198.51.100.2 192.0.2.1 esp 0x1001 -m tunnel -E aes-gcm-16 0x2102030405060708090a0b0c0d0e0f1011121314;
spdadd 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/192.0.2.1-198.51.100.2/require;
spdadd 10.2.0.0/16 10.1.0.0/16 any -P in ipsec esp/tunnel/198.51.100.2-192.0.2.1/require;
dump; spddump;
`

func TestLoadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "setkey.conf")
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	for range 2 { // a second load replaces the first
		if err := b.LoadFile(path); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(b.spis(), []uint32{0x1000, 0x1001}) || b.spd.Len() != 2 {
			t.Errorf("SPIs %#x, %d policies", b.spis(), b.spd.Len())
		}
	}
	if b.changes.Load() != 2 {
		t.Errorf("OnChange called %d times", b.changes.Load())
	}
	if err := b.LoadFile(path + ".not"); !os.IsNotExist(err) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestLoadInstallsAllOrNothing(t *testing.T) {
	tests := []struct {
		name, extra string
		want        []string // parts of the error
	}{
		{"syntax", "spdflash;\n", []string{"a.conf:8:1: "}},
		{"refused by the engine, twice", "delete 192.0.2.1 198.51.100.2 esp 0x2000;\nadd 192.0.2.1 198.51.100.2 esp 0x1000 -E aes-gcm-16 0x0102030405060708090a0b0c0d0e0f1011121314;\n",
			[]string{"a.conf:8:1: no such SA", "\na.conf:9:1: an SA with this SPI"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			setup(t, b)
			before := b.changes.Load()
			err := b.Load("a.conf", []byte(script+tt.extra))
			for _, part := range tt.want {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("error %q lacks %q", err, part)
				}
			}
			if err != nil && strings.Contains(err.Error(), "0102030405") {
				t.Errorf("a key is in %q", err)
			}
			if !slices.Equal(b.spis(), []uint32{0x1000}) || b.spd.Len() != 1 || b.changes.Load() != before {
				t.Errorf("SPIs %#x, %d policies, %d changes", b.spis(), b.spd.Len(), b.changes.Load()-before)
			}
		})
	}
}
