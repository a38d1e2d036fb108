package crypto

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"ipsecd/crypto/alg"
)

// unhex reads octets written with blanks between them.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// octetString is hex in JSON.
type octetString []byte

func (o *octetString) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

// load reads the vectors in a file of testdata, which says where they are from.
func load[V any](t *testing.T, name string) []V {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var vectors []V
	if err := json.Unmarshal(b, &vectors); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if len(vectors) == 0 {
		t.Fatalf("%s: empty", name)
	}
	return vectors
}

func TestNISTAESGCM(t *testing.T) {
	for i, v := range load[struct{ Key, Nonce, AAD, Text, Sealed octetString }](t, "gcm.json") {
		aead := aesGCM(v.Key)
		if got := aead.Seal(nil, v.Nonce, v.Text, v.AAD); !bytes.Equal(got, v.Sealed) {
			t.Errorf("%d: sealed to %x, want %x", i, got, v.Sealed)
		}
		if got, err := aead.Open(nil, v.Nonce, v.Sealed, v.AAD); err != nil || !bytes.Equal(got, v.Text) {
			t.Errorf("%d: opened to %x, %v, want %x", i, got, err, v.Text)
		}
		v.Sealed[len(v.Sealed)-1] ^= 1
		if _, err := aead.Open(nil, v.Nonce, v.Sealed, v.AAD); err == nil {
			t.Errorf("%d: opens with another tag", i)
		}
	}
}

func TestNISTAESCBC(t *testing.T) {
	for i, v := range load[struct{ Key, IV, Text, Sealed octetString }](t, "cbc.json") {
		c := newCBC(v.Key)
		for range 2 { // it is used again
			body := join(v.IV, v.Sealed)
			if c.decrypt(body); !bytes.Equal(body[len(v.IV):], v.Text) {
				t.Errorf("%d: decrypted to %x, want %x", i, body[len(v.IV):], v.Text)
			}
			got := bytes.Clone(v.Text)
			c.enc.SetIV(v.IV) // encrypt makes its own
			if c.enc.CryptBlocks(got, got); !bytes.Equal(got, v.Sealed) {
				t.Errorf("%d: encrypted to %x, want %x", i, got, v.Sealed)
			}
		}
	}
}

func TestNISTHMAC(t *testing.T) {
	seen := map[uint8]bool{}
	for i, v := range load[struct {
		Hash           string
		Key, Text, Sum octetString
	}](t, "hmac.json") {
		a := alg.ByName(alg.Auth, v.Hash)
		seen[a.ID] = true
		m := newMAC(a.ID, v.Key, a.ICV, false)
		for range 2 { // it is used again
			if got := m.tag(v.Text, 1); !bytes.Equal(got, v.Sum[:a.ICV]) || !bytes.Equal(m.sum[:len(v.Sum)], v.Sum) {
				t.Errorf("%d: %s is %x of %x, want %x", i, v.Hash, got, m.sum[:len(v.Sum)], v.Sum)
			}
		}
	}
	for _, a := range alg.All(alg.Auth) {
		if !seen[a.ID] {
			t.Errorf("no vector of %s", a.Name)
		}
	}
}

// RFC 2202 section 3 with keys of 20 octets, and RFC 4868 2.7.2, cut off as in
// ESP.
func TestTagRFC2202AndRFC4868(t *testing.T) {
	counting := make([]byte, 32)
	for i := range counting {
		counting[i] = byte(i + 1)
	}
	hi, jefe := []byte("Hi There"), []byte("what do ya want for nothing?")
	dd := bytes.Repeat([]byte{0xdd}, 50)
	b := func(octet byte, n int) []byte { return bytes.Repeat([]byte{octet}, n) }
	tests := []struct {
		name      string
		auth      uint8
		key, data []byte
		want      string
	}{
		{"RFC 2202 1", alg.HMACSHA1, b(0x0b, 20), hi, "b617318655057264e28bc0b6"},
		{"RFC 2202 3", alg.HMACSHA1, b(0xaa, 20), dd, "125d7342b9ac11cd91a39af4"},
		{"RFC 2202 5", alg.HMACSHA1, b(0x0c, 20), []byte("Test With Truncation"), "4c1a03424b55e07fe7f27be1"},
		{"AUTH256-1", alg.HMACSHA2_256, b(0x0b, 32), hi, "198a607eb44bfbc69903a0f1cf2bbdc5"},
		{"AUTH256-2", alg.HMACSHA2_256, bytes.Repeat([]byte("Jefe"), 8), jefe, "167f928588c5cc2eef8e3093caa0e87c"},
		{"AUTH256-3", alg.HMACSHA2_256, b(0xaa, 32), dd, "cdcb1220d1ecccea91e53aba3092f962"},
		{"AUTH256-4", alg.HMACSHA2_256, counting, b(0xcd, 50), "372efcf9b40b35c2115b1346903d2ef4"},
		{"AUTH384-1", alg.HMACSHA2_384, b(0x0b, 48), hi, "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973"},
		{"AUTH384-2", alg.HMACSHA2_384, bytes.Repeat([]byte("Jefe"), 12), jefe, "2c7353974f1842fd66d53c452ca42122b28c0b594cfb184d"},
		{"AUTH384-3", alg.HMACSHA2_384, b(0xaa, 48), dd, "809f439be00274321d4a538652164b53554a508184a0c316"},
		{"AUTH512-1", alg.HMACSHA2_512, b(0x0b, 64), hi, "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8"},
		{"AUTH512-2", alg.HMACSHA2_512, bytes.Repeat([]byte("Jefe"), 16), jefe, "cb370917ae8a7ce28cfd1d8f4705d6141c173b2a9362c15df235dfb251b15454"},
		{"AUTH512-3", alg.HMACSHA2_512, b(0xaa, 64), dd, "2ee7acd783624ca9398710f3ee05ae41b9f9b0510c87e49e586cc9bf961733d8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, c := newCipher(t, Keys{Enc: alg.NullEnc, Auth: tt.auth, AuthKey: tt.key})
			for range 2 { // the MAC is used again
				if got := hex.EncodeToString(c.(*etm).mac.tag(tt.data, 0)); got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
			}
		})
	}
}

// AES-CBC of RFC 3602 section 4, the ESP packets among them whole. They have
// no ICV there, and get one of each algorithm here.
func TestOpenRFC3602(t *testing.T) {
	ping := "08090a0b0c0d0e0f1011121314151617 18191a1b1c1d1e1f2021222324252627 28292a2b2c2d2e2f3031323334353637"
	tests := []struct{ name, key, header, iv, plain, sealed string }{
		{"case 1", "06a9214036b8a15b512e03d534120006", "00001000 00000001", "3dafba429d9eb430b422da802c9fac41",
			hex.EncodeToString([]byte("Single block msg")), "e353779c1079aeb82708942dbe77181a"},
		{"case 2", "c286696d887c9aa0611bbb3e2025a45a", "00001000 00000001", "562e17996d093d28ddb3ba695a2e6f58",
			"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
			"d296cd94c2cccf8a3a863028b5e1dc0a 7586602d253cfff91b8266bea6d61ab1"},
		{"case 5, transport", "90d382b410eeba7ad938c46cec1a82bf", "00004321 00000001", "e96e8c08ab465763fd098d45dd3ff893",
			"08000ebda70a0000 8e9c083db95b0700" + ping + "0102030405060708090a0b0c0d0e 0e01",
			"f663c25d325c18c6a9453e194e120849 a4870b66cc6b9965330013b4898dc856 a4699e523a55db080b59ec3a8e4b7e52" +
				"775b07d1db34ed9c538ab50c551b874a a269add047ad2d5913ac19b7cfbad4a6"},
		{"case 7, tunnel", "0123456789abcdef0123456789abcdef", "00008765 00000002", "f4e765244f6407adf13dc1380f673f37",
			"45000054090400004001f988c0a87b03c0a87bc8 08009f76a90a0100 b49c083d02a20400" + ping + "0102030405060708090a 0a04",
			"773b5241a4c449225e4f3ce5ed611b0c 237ca96cf74a93013c1b0ea1a0cf70f8 e4ecaec78ac53aad7a0f022b859243c6" +
				"47752e94a859352b8a4d4d2decd136e5 c177f132ad3fbfb2201ac9904c74ee0a 109e0ca1e4dfe9d5a100b842f1c22f0d"},
	}
	for _, tt := range tests {
		for _, a := range alg.All(alg.Auth) {
			t.Run(tt.name+" "+a.Name, func(t *testing.T) {
				key := octets(a.KeyBits[0]/8, 7)
				s, c := newCipher(t, Keys{Enc: alg.AESCBC, EncKey: unhex(t, tt.key), Auth: a.ID, AuthKey: key})
				esp := join(unhex(t, tt.header), unhex(t, tt.iv), unhex(t, tt.sealed))
				esp = append(esp, newMAC(a.ID, key, a.ICV, false).tag(esp, 0)...)
				if !c.Open(new(Scratch), esp, 0) {
					t.Fatal("ICV refused")
				}
				if got := textOf(s, esp); !bytes.Equal(got, unhex(t, tt.plain)) {
					t.Errorf("got %x, want %s", got, tt.plain)
				}
			})
		}
	}
}

// AES-GCM ESP packets of McGrew's test cases for RFC 4106
// (draft-mcgrew-gcm-test-01, section 4). The key is followed by its salt; a
// sequence number of 16 digits is an extended one.
func TestGCMESP(t *testing.T) {
	const dns = "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d0010000010000000000000373697009637962657263697479" +
		"02646b0000010001 0001"
	const ping = "4500003c99c300008001cb7c40679318010101010800085c02004300616263646566676869 6a6b6c6d6e6f707172737475767761626364656667686901020201"
	tests := []struct{ name, key, spi, seq, iv, plain, sealed string }{
		{"128 bits", "feffe9928665731c6d6a8f9467308308 cafebabe", "0000a5f8", "0000000a", "facedbaddecaf888", dns,
			"deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1" +
				"83b70d3aa8bc6ee4c309e9d85a41ad4a"},
		{"192 bits", "feffe9928665731c6d6a8f9467308308feffe9928665731c cafebabe", "0000a5f8", "0000000a", "facedbaddecaf888",
			"45000028a4ad4000400678800a01038f0a010612802306b8cb712602dd6bb03e501016d075680001",
			"a5b1f8066029aea40e598b8122de02420938b3ab33f828e687b8858b5bfbdbd0315b27452144cc77" +
				"95457b9652037f5318027b5b4cd7a636"},
		{"256 bits", "abbccddef00112233445566778899aababbccddef00112233445566778899aab 11223344", "4a2cbfe3", "00000002", "0102030405060708",
			"4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b40101040201020201",
			"ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f0545659f14e99def842d8e" +
				"b335f4eecfdbf831824b4c4915956c96"},
		{"last sequence number", "7d773d00c144c525ac619d18c84a3f47 d9664267", "335467ae", "ffffffff", "43457e9182443bc6",
			"01020201", "437f866bcb3f699fe9b0822bac961c4504bef270"},
		{"esn, low half 0", "4c80cdefbb5d10da906ac73c3613a634 2e443b68", "00004321", "8765432100000000", "4956ed7e3b244cfe",
			"45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000045f736970045f756470037369700963796265726369747902646b00" +
				"0021000101020201",
			"fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce" +
				"61bc17d768fd9732459018148f6cbe722fd04796562dfdb4"},
		{"esn, 128 bits", "3de09874b388e6491988d0c3607eae1f 57690e43", "42f67e3f", "1010101010101010", "4e280000a2fca1a3", ping,
			"fba2caa4853cf9f0f22cb10d86dd83b0fec75691cf1a04b00d1138ec9c35791765acbd8701ad79845bf9fe3fba487bc91755e6662b4c8d0d1f5e22739530320a" +
				"e0d731cc978ecafaeae88f00e80d6e48"},
		{"esn, high half 0", "abbccddef00112233445566778899aab decaf888", "00000100", "0000000000000001", "cafedebaceface74",
			"746f016265016f72016e6f7401746f0162650001",
			"29c9fc69a197d038ccdd14e2ddfcaa0543332164412503524303ed3c6c5f283843af8c3e"},
		{"esn, 256 bits", "abbccddef00112233445566778899aababbccddef00112233445566778899aab 73616c74", "17405e67", "156f3126dd0db99b", "616e640169766563",
			"45080028732c00004006e9f90a0106120a01038f06b88023dd6bafbecb71260250101f646d540001",
			"f2d69ecdbd5a0d5b8d5ef38bad4da58d1f278fde98ef67549d524a3018d9a57ff4d3a31ce673119e451626c2415771e3b7eebca614c89b35"},
		{"esn, last sequence number", "6c6567616c697a656d6172696a75616e61616e64646f69746265666f72656961 7475726e", "796b6963", "ffffffffffffffff", "333021696765746d",
			"45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768696a6b6c6d6e6f707172737401020201",
			"f97ab2aa356d8edce17644ac8c78e25dd24dedbb29ebf1b64a274b39b49c3a864cd3d78ca4ae68a32b42458fb57dbe821dcc63b9d0937ba2945f669368661a32" +
				"9fb4c053"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			seq, err := strconv.ParseUint(tt.seq, 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			s, c := newCipher(t, Keys{Enc: alg.AESGCM16, EncKey: unhex(t, tt.key), ESN: len(tt.seq) == 16})
			plain, hi := unhex(t, tt.plain), uint32(seq>>32)
			esp := unsealed(s, binary.BigEndian.Uint32(unhex(t, tt.spi)), uint32(seq), plain)
			c.Seal(new(Scratch), esp, hi, binary.BigEndian.Uint64(unhex(t, tt.iv)))
			if want := join(unhex(t, tt.spi), esp[4:8], unhex(t, tt.iv), unhex(t, tt.sealed)); !bytes.Equal(esp, want) {
				t.Fatalf("got  %x\nwant %x", esp, want)
			}
			if !c.Open(new(Scratch), esp, hi) || !bytes.Equal(textOf(s, esp), plain) {
				t.Errorf("does not open again: %x", esp)
			}
		})
	}
}

// What a Linux kernel sealed opens to what it had sealed, and only with its
// high half where that counts.
func TestLinuxPackets(t *testing.T) {
	for i, v := range load[struct {
		Name, Enc, Auth string
		EncKey, AuthKey octetString
		ESN             bool
		Hi              uint32
		ESP, Text       octetString
	}](t, "linux.json") {
		t.Run(v.Name+" "+strconv.Itoa(i), func(t *testing.T) {
			k := Keys{Enc: alg.ByName(alg.Enc, v.Enc).ID, EncKey: v.EncKey, AuthKey: v.AuthKey, ESN: v.ESN}
			if v.Auth != "" {
				k.Auth = alg.ByName(alg.Auth, v.Auth).ID
			}
			s, c := newCipher(t, k)
			if c.Open(new(Scratch), bytes.Clone(v.ESP), v.Hi+1) == v.ESN {
				t.Errorf("another high half: ESN is %v", v.ESN)
			}
			if esp := bytes.Clone(v.ESP); !c.Open(new(Scratch), esp, v.Hi) || !bytes.Equal(textOf(s, esp), v.Text) {
				t.Errorf("got  %x\nwant %x", textOf(s, esp), v.Text)
			}
		})
	}
}
