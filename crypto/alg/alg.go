// Package alg is the table of the algorithms that ipsecd knows: their names in
// the setkey language, their PF_KEY numbers and the sizes that RFCs give them.
// It computes nothing and imports nothing of ours, so that the parser, the
// PF_KEY codec and the ciphers agree by reading one table.
package alg

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Kind says what an algorithm is for. PF_KEY numbers each kind on its own.
type Kind uint8

const (
	Enc  Kind = iota + 1 // -E: encryption, or both for combined modes
	Auth                 // -A: authentication
)

func (k Kind) String() string {
	switch k {
	case Enc:
		return "encryption"
	case Auth:
		return "authentication"
	}
	return "kind " + strconv.Itoa(int(k))
}

// PF_KEY numbers (SADB_EALG_*, SADB_AALG_*, SADB_X_*), as KAME has them.
const (
	NullAuth     uint8 = 0 // no separate authentication
	HMACSHA1     uint8 = 3
	HMACSHA2_256 uint8 = 5
	HMACSHA2_384 uint8 = 6
	HMACSHA2_512 uint8 = 7

	NullEnc  uint8 = 11 // no encryption
	AESCBC   uint8 = 12
	AESGCM16 uint8 = 20

	saltBitsOfAEAD = 32
)

// Info describes one algorithm. Sizes of keys are in bits, as PF_KEY has them;
// the others are in octets.
type Info struct {
	Kind    Kind
	ID      uint8    // PF_KEY number
	Name    string   // as setkey prints it
	Aliases []string // other spellings that setkey reads
	KeyBits []int    // accepted lengths of the cipher's own key, ascending
	KeyStep int      // if not 0: KeyBits are two, and each such step from one to the other is accepted
	Salt    int      // bits of salt that follow the key (RFC 4106 section 8.1)
	Block   int      // what the text is padded to, at least 4 for ESP
	IV      int      // octets of IV on the wire
	ICV     int      // octets of ICV on the wire; 0 for plain ciphers
	RFC     string
}

// Combined reports whether the cipher authenticates by itself, so that no -A
// goes with it.
func (i *Info) Combined() bool { return i.Kind == Enc && i.ICV > 0 }

var table = []Info{
	{Kind: Enc, ID: NullEnc, Name: "null", Aliases: []string{"simple"},
		KeyBits: []int{0, 2048}, KeyStep: 8, Block: 4, RFC: "RFC 2410"},
	{Kind: Enc, ID: AESCBC, Name: "aes-cbc", Aliases: []string{"rijndael-cbc"},
		KeyBits: []int{128, 192, 256}, Block: 16, IV: 16, RFC: "RFC 3602"},
	{Kind: Enc, ID: AESGCM16, Name: "aes-gcm-16",
		KeyBits: []int{128, 192, 256}, Salt: saltBitsOfAEAD, Block: 4, IV: 8, ICV: 16, RFC: "RFC 4106"},
	{Kind: Auth, ID: HMACSHA1, Name: "hmac-sha1",
		KeyBits: []int{160}, ICV: 12, RFC: "RFC 2404"},
	{Kind: Auth, ID: HMACSHA2_256, Name: "hmac-sha2-256", Aliases: []string{"hmac-sha256"},
		KeyBits: []int{256}, ICV: 16, RFC: "RFC 4868"},
	{Kind: Auth, ID: HMACSHA2_384, Name: "hmac-sha2-384", Aliases: []string{"hmac-sha384"},
		KeyBits: []int{384}, ICV: 24, RFC: "RFC 4868"},
	{Kind: Auth, ID: HMACSHA2_512, Name: "hmac-sha2-512", Aliases: []string{"hmac-sha512"},
		KeyBits: []int{512}, ICV: 32, RFC: "RFC 4868"},
}

// ByID returns the algorithm with a PF_KEY number, or nil.
func ByID(k Kind, id uint8) *Info {
	for i := range table {
		if table[i].Kind == k && table[i].ID == id {
			return &table[i]
		}
	}
	return nil
}

// ByName returns the algorithm with a name or an alias, or nil. Names are
// case-sensitive, as in setkey.
func ByName(k Kind, name string) *Info {
	for i := range table {
		a := &table[i]
		if a.Kind != k {
			continue
		}
		if a.Name == name {
			return a
		}
		for _, alias := range a.Aliases {
			if alias == name {
				return a
			}
		}
	}
	return nil
}

// All returns the algorithms of a kind in the order of their numbers. The
// result is the caller's; what it points to is not to be changed.
func All(k Kind) []*Info {
	var out []*Info
	for i := range table {
		if table[i].Kind == k {
			out = append(out, &table[i])
		}
	}
	return out
}

// Names returns every spelling of a kind, for messages that say what would be
// right.
func Names(k Kind) []string {
	var out []string
	for _, a := range All(k) {
		out = append(out, a.Name)
		out = append(out, a.Aliases...)
	}
	return out
}

// CheckKey says whether a key of n bits, salt included, fits; the error names
// the lengths that do.
func (i *Info) CheckKey(n int) error {
	switch {
	case i.fits(n - i.Salt):
		return nil
	case i.Salt == 0:
		return fmt.Errorf("%s takes a key of %s bits, not %d", i.Name, i.lengths(), n)
	case i.fits(n):
		return fmt.Errorf("%s takes a key of %s bits, not %d: the last %d bits are the salt",
			i.Name, i.lengths(), n, i.Salt)
	}
	return fmt.Errorf("%s takes a key of %s bits (the last %d are the salt), not %d", i.Name, i.lengths(), i.Salt, n)
}

// fits reports whether the cipher takes a key of n bits, without salt.
func (i *Info) fits(n int) bool {
	if i.KeyStep == 0 {
		return slices.Contains(i.KeyBits, n)
	}
	least, most := i.KeyBits[0], i.KeyBits[1]
	return n >= least && n <= most && (n-least)%i.KeyStep == 0
}

// lengths says which keys fit, salt included: "160, 224 or 288", or "0, 8, ...
// 2048".
func (i *Info) lengths() string {
	s := make([]string, len(i.KeyBits))
	for n, k := range i.KeyBits {
		s[n] = strconv.Itoa(k + i.Salt)
	}
	switch {
	case i.KeyStep != 0:
		return fmt.Sprintf("%s, %d, ... %s", s[0], i.MinBits()+i.KeyStep, s[1])
	case len(s) == 1:
		return s[0]
	}
	return strings.Join(s[:len(s)-1], ", ") + " or " + s[len(s)-1]
}

// MinBits and MaxBits bound the key as PF_KEY reports it in SADB_EXT_SUPPORTED,
// salt included.
func (i *Info) MinBits() int { return i.KeyBits[0] + i.Salt }

// MaxBits is the longest key, salt included.
func (i *Info) MaxBits() int { return i.KeyBits[len(i.KeyBits)-1] + i.Salt }
