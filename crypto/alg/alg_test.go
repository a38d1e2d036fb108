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
		{Enc, "aes-cbc", 12, 128, 256, 16, 16, 0, false},
		{Enc, "rijndael-cbc", 12, 128, 256, 16, 16, 0, false},
		{Enc, "aes-gcm-16", 20, 160, 288, 4, 8, 16, true},
		{Auth, "hmac-sha2-256", 5, 256, 256, 0, 0, 16, false},
		{Auth, "hmac-sha256", 5, 256, 256, 0, 0, 16, false},
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
	for _, k := range []Kind{Enc, Auth} {
		for _, a := range All(k) {
			for n := range 600 {
				want := slices.Contains(a.KeyBits, n-a.Salt)
				if err := a.CheckKey(n); (err == nil) != want {
					t.Errorf("%s with %d bits: %v", a.Name, n, err)
				}
			}
		}
	}
	for bits, want := range map[int]string{
		256: "aes-gcm-16 takes a key of 160, 224 or 288 bits, not 256: the last 32 bits are the salt",
		100: "aes-gcm-16 takes a key of 160, 224 or 288 bits (the last 32 are the salt), not 100",
	} {
		if err := ByName(Enc, "aes-gcm-16").CheckKey(bits); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
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
