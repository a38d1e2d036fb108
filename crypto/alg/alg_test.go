package alg

import (
	"slices"
	"testing"
)

func TestLookup(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range []Kind{Enc, Auth} {
		all := All(k)
		if len(all) == 0 {
			t.Errorf("no %s algorithm", k)
		}
		for _, a := range all {
			if a.Kind != k || ByID(k, a.ID) != a {
				t.Errorf("%s: not found by number %d", a.Name, a.ID)
			}
			for _, name := range append([]string{a.Name}, a.Aliases...) {
				if ByName(k, name) != a || seen[name] {
					t.Errorf("%s: not, or not alone, found by %q", a.Name, name)
				}
				seen[name] = true
				if !slices.Contains(Names(k), name) {
					t.Errorf("%q is not among the names", name)
				}
			}
		}
	}
	if ByName(Enc, "AES-CBC") != nil || ByName(Enc, "hmac-sha2-256") != nil || ByName(Auth, "aes-cbc") != nil || ByName(Enc, "") != nil {
		t.Error("names: case or kind does not matter")
	}
	if ByID(Auth, AESGCM16) != nil || ByID(Enc, 0) != nil {
		t.Error("numbers: kind does not matter")
	}
}

// KAME's and FreeBSD's numbers, the RFCs' sizes.
func TestTable(t *testing.T) {
	tests := []struct {
		kind           Kind
		name           string
		id             uint8
		min, max       int
		block, iv, icv int
		combined       bool
	}{
		{Enc, "null", 11, 0, 2048, 4, 0, 0, false},
		{Enc, "simple", 11, 0, 2048, 4, 0, 0, false},
		{Enc, "aes-cbc", 12, 128, 256, 16, 16, 0, false},
		{Enc, "rijndael-cbc", 12, 128, 256, 16, 16, 0, false},
		{Enc, "aes-gcm-16", 20, 160, 288, 4, 8, 16, true},
		{Auth, "hmac-sha1", 3, 160, 160, 0, 0, 12, false},
		{Auth, "hmac-sha2-256", 5, 256, 256, 0, 0, 16, false},
		{Auth, "hmac-sha256", 5, 256, 256, 0, 0, 16, false},
		{Auth, "hmac-sha2-384", 6, 384, 384, 0, 0, 24, false},
		{Auth, "hmac-sha384", 6, 384, 384, 0, 0, 24, false},
		{Auth, "hmac-sha2-512", 7, 512, 512, 0, 0, 32, false},
		{Auth, "hmac-sha512", 7, 512, 512, 0, 0, 32, false},
	}
	for _, tt := range tests {
		a := ByName(tt.kind, tt.name)
		if a == nil {
			t.Errorf("no %s", tt.name)
			continue
		}
		if a.ID != tt.id || a.MinBits() != tt.min || a.MaxBits() != tt.max || a.Block != tt.block ||
			a.IV != tt.iv || a.ICV != tt.icv || a.Combined() != tt.combined || a.RFC == "" {
			t.Errorf("%s: %+v", tt.name, *a)
		}
	}
}

func TestCheckKey(t *testing.T) {
	fits := map[string]func(bits int) bool{
		"null":          func(n int) bool { return n%8 == 0 && n <= 2048 },
		"aes-cbc":       func(n int) bool { return n == 128 || n == 192 || n == 256 },
		"aes-gcm-16":    func(n int) bool { return n == 160 || n == 224 || n == 288 },
		"hmac-sha1":     func(n int) bool { return n == 160 },
		"hmac-sha2-256": func(n int) bool { return n == 256 },
		"hmac-sha2-384": func(n int) bool { return n == 384 },
		"hmac-sha2-512": func(n int) bool { return n == 512 },
	}
	for _, a := range slices.Concat(All(Enc), All(Auth)) {
		for n := range 3000 {
			if err := a.CheckKey(n); (err == nil) != fits[a.Name](n) {
				t.Errorf("%s with %d bits: %v", a.Name, n, err)
			}
		}
	}
	tests := []struct {
		kind Kind
		name string
		bits int
		want string
	}{
		{Enc, "aes-gcm-16", 256, "aes-gcm-16 takes a key of 160, 224 or 288 bits, not 256: the last 32 bits are the salt"},
		{Enc, "aes-gcm-16", 100, "aes-gcm-16 takes a key of 160, 224 or 288 bits (the last 32 are the salt), not 100"},
		{Enc, "aes-cbc", 64, "aes-cbc takes a key of 128, 192 or 256 bits, not 64"},
		{Enc, "simple", 2056, "null takes a key of 0, 8, ... 2048 bits, not 2056"},
		{Enc, "null", 12, "null takes a key of 0, 8, ... 2048 bits, not 12"},
		{Auth, "hmac-sha1", 128, "hmac-sha1 takes a key of 160 bits, not 128"},
		{Auth, "hmac-sha384", 256, "hmac-sha2-384 takes a key of 384 bits, not 256"},
	}
	for _, tt := range tests {
		if err := ByName(tt.kind, tt.name).CheckKey(tt.bits); err == nil || err.Error() != tt.want {
			t.Errorf("got  %v\nwant %s", err, tt.want)
		}
	}
}

func TestKindString(t *testing.T) {
	for k, want := range map[Kind]string{Enc: "encryption", Auth: "authentication", 9: "kind 9"} {
		if k.String() != want {
			t.Errorf("%d is %q, want %q", uint8(k), k, want)
		}
	}
}
