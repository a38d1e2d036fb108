package config

import (
	"strings"
	"testing"
)

// TestReject names the exact text of every error. Positions are those of the
// word that is wrong.
func TestReject(t *testing.T) {
	const (
		head  = "add 192.0.2.1 192.0.2.2 esp 0x1000 "
		sel   = "spdadd 10.0.0.0/8 10.0.0.0/8 any "
		rule  = "spdadd 10.0.0.0/8 10.0.0.0/8 any -P out ipsec "
		del   = "spddelete 10.0.0.0/8 10.0.0.0/8 any -P out "
		upd   = "update 192.0.2.1 192.0.2.2 esp 0x1000 "
		ports = "ports come here, by esp-udp or -natt, or the algorithms: -E ALGORITHM KEY [-A ALGORITHM KEY]"
		natt  = "-natt in a mode other than tunnel is not supported by this version; write -m tunnel, or give the ports alone, with esp-udp"
		hosts = "leave out the ends, as in esp/transport//LEVEL, or give hosts of the ranges"
		multi = "transport mode of multicast is not supported by this version; give ranges of hosts, or use a tunnel"
		stmts = "add, update, get, delete, deleteall, flush, dump, spdadd, spdupdate, spddelete, spdflush, spddump, exit, quit or bye"
		exts  = "-m, -r, -u, -f, -esn, -natt, -E or -A"
		encs  = "null, simple, aes-cbc, rijndael-cbc or aes-gcm-16"
		auths = "hmac-sha1, hmac-sha2-256, hmac-sha256, hmac-sha2-384, hmac-sha384, hmac-sha2-512 or hmac-sha512"
		form  = "a rule is esp/tunnel/SRC-DST/LEVEL or esp/transport//LEVEL"
		keys  = `write the key as 0x and hexadecimal digits, or "in quotes"`
	)
	for _, tt := range []struct{ src, want string }{
		// Statements.
		{";", "1:1: no statement stands before this semicolon; remove it"},
		{"spdad;", `1:1: "spdad" is not a known statement; did you mean spdadd? Known: ` + stmts},
		{"nonsense; dunp;", "1:1: \"nonsense\" is not a known statement; use " + stmts + "\n" +
			"f:1:11: word of 4 characters is not a known statement; did you mean dump? Known: " + stmts},
		{"nonsense;\ndunp;", "1:1: \"nonsense\" is not a known statement; use " + stmts + "\n" +
			"f:2:1: \"dunp\" is not a known statement; did you mean dump? Known: " + stmts},
		{"getspi;", "1:1: getspi is not supported by this version; use " + stmts},
		{`"add";`, "1:1: unexpected quoted string; a statement starts with " + stmts},
		{"flush", "1:6: the last statement does not end; put a ; behind it"},
		{"flush 7;", `1:7: "7" is not a known protocol; use esp or esp-udp`},
		{"flush ah;", "1:7: ah is not supported by this version; the protocols are esp or esp-udp"},
		{"spdflush esp;", `1:10: unexpected "esp"; the statement is complete here: end it with ;`},
		{`add "192.0.2.1`, `1:5: the quote that opens here is never closed; close it with "`},

		// Addresses.
		{"add", "1:4: the input ends inside a statement; an address comes here"},
		{"add;", "1:4: the statement ends too early; an address comes here"},
		{"add east 192.0.2.2 esp 256;", `1:5: the host name "east" is not supported by this version; give a numeric address`},
		{"add esp 192.0.2.2 esp 256;", `1:5: "esp" is no address; an address comes here`},
		{"add 010.0.0.1 192.0.2.2 esp 256;", `1:5: "010.0.0.1" has an octet with leading zeros, which some read as octal; write octets in plain decimal`},
		{"add 10.1 192.0.2.2 esp 256;", `1:5: "10.1" is not an IPv4 address; write four octets, as in 192.0.2.1`},
		{"add 2001:db8 ::1 esp 256;", `1:5: "2001:db8" is not an IPv6 address; write it as 2001:db8::1`},
		{"add fe80::1%em0 ::1 esp 256;", `1:5: the scope in "fe80::1%em0" is not supported by this version; give an address that needs none`},
		{"add ::ffff:10.0.0.1 ::1 esp 256;", "1:5: ::ffff:10.0.0.1 is an IPv4 address in IPv6 form; write 10.0.0.1"},
		{"add 192.0.2.1 2001:db8::2 esp 256;", "1:15: 192.0.2.1 and 2001:db8::2 are of different families; give two IPv4 or two IPv6 addresses"},
		{"add -6 192.0.2.1 192.0.2.2 esp 256;", "1:8: 192.0.2.1 is not an IPv6 address, as -6 asks for; leave out the option, or give an address of that family"},
		{"add -4x 192.0.2.1 192.0.2.2 esp 256;", `1:5: "-4x" is not a known option before an address; did you mean -4? Known: -4, -6 or -n`},
		{"add -4 2001:db8::1 2001:db8::2 esp 256;", "1:8: 2001:db8::1 is not an IPv4 address, as -4 asks for; leave out the option, or give an address of that family"},
		{"add 0.0.0.0 192.0.2.2 esp 256;", "1:5: 0.0.0.0 is the address of no host; give that of a host as an end of an SA"},
		{"add 2001:db8::1 :: esp 256;", "1:17: :: is the address of no host; give that of a host as an end of an SA"},
		{"add 192.0.2.1 224.0.0.5 esp 256;", "1:15: the multicast address 224.0.0.5 as an end of an SA is not supported by this version; give the address of a host"},
		{"deleteall 2001:db8::1 ff02::5 esp;", "1:23: the multicast address ff02::5 as an end of an SA is not supported by this version; give the address of a host"},
		{"add 192.0.2.1[4500] 192.0.2.2[4500] esp 256;", "1:5: ports do not go with esp; write esp-udp, or give them by -natt"},
		{"add 192.0.2.1[0] 192.0.2.2 esp-udp 256;", `1:15: the port "0" is not right; a port is a number from 1 to 65535`},
		{"add 192.0.2.1[70000] 192.0.2.2 esp-udp 256;", `1:15: the port "70000" is not right; a port is a number from 1 to 65535`},
		{"add 192.0.2.1[1 192.0.2.2 esp-udp 256;", `1:17: unexpected "192.0.2.2"; the port ends with ]`},

		// Protocol and SPI.
		{"add 192.0.2.1 192.0.2.2;", "1:24: the statement ends too early; the protocol comes here: esp or esp-udp"},
		{"add 192.0.2.1 192.0.2.2 ah 0x1000;", "1:25: ah is not supported by this version; the protocols are esp or esp-udp"},
		{"add 192.0.2.1 192.0.2.2 esp-old 0x1000;", "1:25: esp-old is not supported by this version; the protocols are esp or esp-udp"},
		{"add 192.0.2.1 192.0.2.2 ipcomp 0x1000;", "1:25: ipcomp is not supported by this version; the protocols are esp or esp-udp"},
		{"add 192.0.2.1 192.0.2.2 tcp 0x1000;", "1:25: tcp is not supported by this version; the protocols are esp or esp-udp"},
		{"add 192.0.2.1 192.0.2.2 exp 0x1000;", `1:25: "exp" is not a known protocol; did you mean esp? Known: esp or esp-udp`},
		{"add 192.0.2.1 192.0.2.2 0x1000;", `1:25: "0x1000" is not a known protocol; use esp or esp-udp`},
		{"get 192.0.2.1 192.0.2.2 esp 255;", `1:29: the SPI "255" is not right; an SPI is a number from 0x100 to 0xffffffff`},
		{"get 192.0.2.1 192.0.2.2 esp 0x100000000;", `1:29: the SPI "0x100000000" is not right; an SPI is a number from 0x100 to 0xffffffff`},
		{"get 192.0.2.1 192.0.2.2 esp;", "1:28: the statement ends too early; an SPI is a number from 0x100 to 0xffffffff"},
		{"delete 192.0.2.1 192.0.2.2 esp 256 -m tunnel;", `1:36: "-m" does not go with delete; addresses and protocol, and the SPI if it is one SA, are all that it takes`},
		{"deleteall 192.0.2.1 192.0.2.2 esp 256;", "1:35: deleteall takes no SPI; leave it out, or write delete to name one SA"},

		// Options of add.
		{head + "-m tunel;", `1:39: "tunel" is not a known mode; did you mean tunnel? Known: tunnel, transport or any`},
		{head + "-m beet;", `1:39: "beet" is not a known mode; use tunnel, transport or any`},
		{head + "-r 32769;", `1:39: -r "32769" is not right; the replay window in octets (of 8 packets each) is a decimal number from 0 to 32768`},
		{head + "-r 0x20;", `1:39: -r "0x20" is not right; the replay window in octets (of 8 packets each) is a decimal number from 0 to 32768`},
		{head + "-u 16384;", `1:39: -u "16384" is not right; a request id is a decimal number from 0 to 16383`},
		{head + "-u ;", "1:39: the statement ends too early; a request id is a decimal number from 0 to 16383"},
		{head + "-f cyclic-seq;", "1:39: cyclic-seq is not supported by this version; use seq-pad, zero-pad, random-pad or nocyclic-seq"},
		{head + "-f zero-pda;", `1:39: "zero-pda" is not a known argument of -f; did you mean zero-pad? Known: seq-pad, zero-pad, random-pad or nocyclic-seq`},
		{head + "-lh 100;", "1:36: -lh is not supported by this version; use " + exts},
		{head + "-hwif em0;", "1:36: -hwif is not supported by this version; use " + exts},
		{head + "-esn 1;", "1:41: unexpected word of 1 characters; the algorithms come here: -E ALGORITHM KEY [-A ALGORITHM KEY]"},
		{upd + "-nat;", `1:39: "-nat" is not a known option of update; did you mean -natt? Known: ` + exts},
		{upd + "-lh 100;", "1:39: -lh is not supported by this version; use " + exts},
		{upd + "-A hmac-sha256 " + hmacKey + ";", "1:39: -A stands without -E before it; write -E ALGORITHM KEY, then -A ALGORITHM KEY"},
		{upd + "-E aes-gcm-16;", "1:52: aes-gcm-16 has no key; " + keys},
		{upd, "1:38: the input ends inside a statement; " + ports},
		{upd + ";", "1:39: the statement ends too early; " + ports},
		{upd + "-esn;", "1:39: -esn does not change without the keys; leave it out, or give the keys again by -E"},
		{upd + "-natt 10.0.0.1[1] 10.0.0.2[2] -f seq-pad -u 7;",
			"1:69: -f does not change without the keys; leave it out, or give the keys again by -E"},
		{"update 192.0.2.1 192.0.2.2 esp-udp 0x1000 -m any;", "1:43: -m does not change without the keys; leave it out, or give the keys again by -E"},
		{upd + "-m any -natt 10.0.0.1[1] 10.0.0.2[2] -E aes-gcm-16 " + gcmKey + ";", "1:46: " + natt},
		{head + "-m tunnel -natt 10.0.0.1[1] 10.0.0.2[2] -m transport -E aes-gcm-16 " + gcmKey + ";", "1:46: " + natt},
		{head + "-natt 10.0.0.1[1] 10.0.0.2[2] -E aes-gcm-16 " + gcmKey + ";", "1:36: " + natt},
		{"update 192.0.2.1 192.0.2.2 esp;", "1:31: the statement ends too early; an SPI is a number from 0x100 to 0xffffffff"},
		{head + "-C deflate;", "1:36: -C is not supported by this version; use " + exts},
		{head + "-nat;", `1:36: "-nat" is not a known option of add; did you mean -natt? Known: ` + exts},
		{head + "-natt 10.0.0.1[4500] 10.0.0.2;", "1:65: -natt needs a port with each address; write ADDRESS[PORT] ADDRESS[PORT]"},
		{"add 192.0.2.1[1] 192.0.2.2[2] esp-udp 256 -natt 10.0.0.1[1] 10.0.0.2[2];",
			"1:43: ports are given twice, by the addresses and by -natt; leave out one of the two"},

		// Algorithms and keys.
		{head + ";", "1:36: the statement ends too early; the algorithms come here: -E ALGORITHM KEY [-A ALGORITHM KEY]"},
		{head + "-A hmac-sha256 " + hmacKey + ";", "1:36: -A stands without -E before it; write -E ALGORITHM KEY, then -A ALGORITHM KEY"},
		{head + "-E aes-gcm " + gcmKey + ";", `1:39: "aes-gcm" is not a known encryption algorithm; did you mean aes-gcm-16? Known: ` + encs},
		{head + "-E aes-gmc-16 " + gcmKey + ";", `1:39: "aes-gmc-16" is not a known encryption algorithm; did you mean aes-gcm-16? Known: ` + encs},
		{head + "-E rot13 " + gcmKey + ";", `1:39: word of 5 characters is not a known encryption algorithm; use ` + encs},
		{head + "-E 3des-cbc " + gcmKey + ";", "1:39: 3des-cbc is not supported by this version; use " + encs},
		{head + "-E null;", "1:43: null without -A would leave packets unauthenticated; add -A ALGORITHM KEY, with one of " + auths},
		{head + `-E null "";`, "1:46: null without -A would leave packets unauthenticated; add -A ALGORITHM KEY, with one of " + auths},
		{head + "-E null -A null;", "1:47: -A null would leave packets unauthenticated; write -A ALGORITHM KEY, with one of " + auths},
		{head + "-E null -m tunnel;", "1:44: -m comes too late; options such as -m, -r and -u come before -E"},
		{head + "-E null -topsecret;", "1:44: something follows the key; end the statement with ;, or put a key with blanks in quotes"},
		{head + "-E null topsecret;", "1:44: the key of null is neither quoted nor hexadecimal; " + keys},
		{head + "-E null 0x123;", "1:44: the key of null has an odd number of hexadecimal digits, 3; write two for each octet"},
		{head + `-E null "` + strings.Repeat("x", 257) + `";`, "1:44: null takes a key of 0, 8, ... 2048 bits, not 2056"},
		{head + "-E chacha20-poly1305 " + gcmKey + ";", "1:39: chacha20-poly1305 is not supported by this version; use " + encs},
		{head + "-E hmac-sha256 " + hmacKey + ";", "1:39: hmac-sha256 is for authentication; give it by -A; for -E there are " + encs},
		{head + "-E aes-cbc " + cbcKey + " -A hmac-sha1 " + cbcKey + ";", "1:95: hmac-sha1 takes a key of 160 bits, not 128"},
		{head + "-E aes-cbc " + cbcKey + " -A hmac-md5 " + cbcKey + ";", "1:85: hmac-md5 is not supported by this version; use " + auths},
		{head + "-E aes-cbc " + cbcKey + " -A null;", "1:85: -A null would leave packets unauthenticated; write -A ALGORITHM KEY, with one of " + auths},
		{head + "-E aes-cbc " + cbcKey + " -A aes-cbc " + cbcKey + ";", "1:85: aes-cbc is for encryption; give it by -E; for -A there are " + auths},
		{head + "-E aes-cbc " + cbcKey + ";", "1:81: aes-cbc without -A would leave packets unauthenticated; add -A ALGORITHM KEY, with one of " + auths},
		{head + "-E aes-gcm-16 " + gcmKey + " -A hmac-sha256 " + hmacKey + ";", "1:93: aes-gcm-16 authenticates by itself; leave out -A"},
		{head + "-E aes-gcm-16 " + gcmKey + " -m tunnel;", "1:93: -m comes too late; options such as -m, -r and -u come before -E"},
		{head + "-E aes-gcm-16 " + gcmKey + " -lh 100;", "1:93: -lh comes too late; options such as -m, -r and -u come before -E"},
		{head + "-E aes-gcm-16 " + gcmKey + " -topsecret;", "1:93: something follows the key; end the statement with ;, or put a key with blanks in quotes"},
		{head + "-E aes-gcm-16 " + gcmKey + "/topsecret;", "1:92: something follows the key; end the statement with ;, or put a key with blanks in quotes"},
		{head + "-E aes-gcm-16 " + gcmKey + " -E aes-gcm-16;", "1:93: -E is given too late or twice; write -E ALGORITHM KEY, then -A ALGORITHM KEY, then ;"},
		{head + "-E aes-gcm-16;", "1:49: aes-gcm-16 has no key; " + keys},
		{head + "-E aes-cbc -A hmac-sha256 " + hmacKey + ";", "1:46: aes-cbc has no key; " + keys},
		{head + "-E aes-gcm-16 0x123;", "1:50: the key of aes-gcm-16 has an odd number of hexadecimal digits, 3; write two for each octet"},
		{head + "-E aes-gcm-16 0x12zz;", "1:50: the key of aes-gcm-16 has characters that are not hexadecimal; write 0 to 9 and a to f after 0x"},
		{head + "-E aes-gcm-16 topsecret;", "1:50: the key of aes-gcm-16 is neither quoted nor hexadecimal; " + keys},
		{head + `-E aes-gcm-16 "topsecret`, `1:50: the quote that opens here is never closed; close it with "`},
		{head + "-E aes-gcm-16 " + cbcKey + ";", "1:50: aes-gcm-16 takes a key of 160, 224 or 288 bits, not 128: the last 32 bits are the salt"},
		{head + `-E aes-cbc "topsecret";`, "1:47: aes-cbc takes a key of 128, 192 or 256 bits, not 72"},
		{head + "-E aes-gcm-16 " + gcmKey + " topsecret;", "1:93: something follows the key; end the statement with ;, or put a key with blanks in quotes"},
		{head + "-E " + gcmKey + ";", `1:39: word of 42 characters is not a known encryption algorithm; use ` + encs},
		{head + `-E "topsecret";`, "1:39: unexpected quoted string; the name of an algorithm comes here: " + encs},

		// Selectors.
		{"spdadd 0/0 10.0.0.0/8 any -P in none;", `1:8: "0" is not an IPv4 address; write four octets, as in 192.0.2.1`},
		{"spdadd ::/129 ::/0 any -P in none;", `1:11: the prefix length "129" is not right; the prefix length of an IPv6 address is 0 to 128`},
		{"spdadd 10.0.0.0/8 ::/0 any -P in none;", "1:19: 10.0.0.0 and :: are of different families; give two IPv4 or two IPv6 addresses"},
		{"spdadd 10.0.0.0[22]/8 10.0.0.0/8 any -P in none;", "1:20: the prefix length stands behind the port; write ADDRESS/LENGTH[PORT]"},
		{"spdadd 10.0.0.0/8[65536] 10.0.0.0/8 tcp -P in none;",
			`1:19: the port "65536" is not right; a port is any, a number from 0 to 65535, or the name of a common service`},
		{"spdadd 10.0.0.0/8[htpt] 10.0.0.0/8 tcp -P in none;", `1:19: the service "htpt" is not known; give the port as a number`},
		{"spdadd 10.0.0.0/8[22] 10.0.0.0/8 gre -P in none;",
			"1:8: ports do not go with gre; write [any] or leave them out; ICMP's type,code stands behind the protocol"},
		{"spdadd 10.0.0.0/8[any] 10.0.0.0/8[22] icmp -P in none;",
			"1:24: ports do not go with icmp; write [any] or leave them out; ICMP's type,code stands behind the protocol"},
		{"spdadd 10.0.0.0/8 10.0.0.0/8 icmp6 -P in none;", "1:30: icmp6 is not for IPv4, and would match nothing; write icmp"},
		{"spdadd fd00::/8 fd00::/8 1 -P in none;", "1:26: 1 is not for IPv6, and would match nothing; write icmp6"},
		{"spdadd 10.0.0.0/8 10.0.0.0/8 256 -P in none;", `1:30: the upper-layer protocol "256" is not right; numbers are 1 to 255, and 255 is any`},
		{"spdadd 10.0.0.0/8 10.0.0.0/8 0 -P in none;", `1:30: the upper-layer protocol "0" is not right; numbers are 1 to 255, and 255 is any`},
		{"spdadd 10.0.0.0/8 10.0.0.0/8 tpc -P in none;",
			`1:30: "tpc" is not a known upper-layer protocol; did you mean tcp? Known: any, tcp, udp, icmp, icmp6, gre, sctp, esp, ah, ip4, ipv6 or ospf`},
		{"spdadd 10.0.0.0/8 10.0.0.0/8 -P in none;",
			`1:30: "-P" is not a known upper-layer protocol; use any, tcp, udp, icmp, icmp6, gre, sctp, esp, ah, ip4, ipv6 or ospf`},
		{"spdadd 10.0.0.0/8 10.0.0.0/8 icmp 8,256 -P in none;", `1:35: the ICMP type "8,256" is not right; write type or type,code with numbers from 0 to 255`},
		{"spdadd 10.0.0.0/8 10.0.0.0/8 icmp 0,0 -P in none;", "1:35: ICMP type 0 cannot be told from any type; leave out the type to match them all"},
		{"spdadd 10.0.0.0/8 10.0.0.0/8 tcp 1,1 -P in none;", `1:34: unexpected "1,1" behind tcp; only icmp and icmp6 take type,code; the policy starts with -P`},
		{`spdadd tagged "x" -P in none;`, "1:8: tagged is not supported by this version; give two address ranges"},
		{sel + `-ctx 1 1 "x" -P in none;`, "1:34: -ctx is not supported by this version; leave it out"},

		// Policies.
		{sel + ";", "1:34: the statement ends too early; the policy comes here: -P DIRECTION ..."},
		{sel + "-P fwd none;", "1:37: the direction fwd is not supported by this version; a policy in judges all that arrives: write in"},
		{sel + "-P on none;", `1:37: "on" is not a known direction; did you mean in? Known: in or out`},
		{sel + "-P out;", "1:40: the statement ends too early; the action comes here: ipsec, none or discard"},
		{sel + "-P out entrust;", "1:41: entrust is for policies of sockets, which ipsecd has none of; write none, ipsec or discard"},
		{sel + "-P out bypass;", "1:41: bypass is for policies of sockets, which ipsecd has none of; write none, ipsec or discard"},
		{sel + "-P out prio def none;", "1:41: prio is not supported by this version; leave it out: policies are tried in the order they are added"},
		{sel + "-P out drop;", `1:41: "drop" is not a known action; use ipsec, none or discard`},
		{sel + "-P out none esp/tunnel/192.0.2.1-192.0.2.2/require;", "1:46: a rule does not go with none; write ipsec before it, or leave it out"},
		{del + "esp;", `1:44: "esp" is not a known action; use ipsec, none or discard`},
		{del + "none esp/tunnel/192.0.2.1-192.0.2.2/require;", "1:49: a rule does not go with none; write ipsec before it, or leave it out"},
		{del + "ipsec;", "1:49: the statement ends too early; " + form},
		{del + "ipsec esp/transport//use;",
			"1:65: the level use, which lets packets out in clear when there is no SA, is not supported by this version; write require"},
		{del + `"none";`, "1:44: unexpected quoted string; the statement is complete here: end it with ;"},
		{del, "1:43: the last statement does not end; put a ; behind it"},
		{rule + ";", "1:47: the statement ends too early; " + form},
		{rule + "esp;", "1:50: the statement ends too early; " + form},
		{rule + "ah/tunnel/192.0.2.1-192.0.2.2/require;", "1:47: ah is not supported by this version; use esp"},
		{rule + "ipcomp/tunnel/192.0.2.1-192.0.2.2/require;", "1:47: ipcomp is not supported by this version; use esp"},
		{rule + "esp/transport//use;",
			"1:62: the level use, which lets packets out in clear when there is no SA, is not supported by this version; write require"},
		{rule + "esp/transport/require;", `1:61: the level "require" stands where the ends do; write esp/transport//LEVEL`},
		{rule + "esp/tunnel/require;", `1:58: the level "require" stands where the ends do; write esp/tunnel/SRC-DST/LEVEL`},
		{rule + "esp/transport/unique:7;", `1:61: the level "unique:7" stands where the ends do; write esp/transport//LEVEL`},
		{rule + "esp/transport/192.0.2.1-10.0.0.2/require;", "1:61: in transport mode packets keep their addresses, and 192.0.2.1 is none of 10.0.0.0/8; " + hosts},
		{rule + "esp/transport/fd00::1-fd00::2/require;", "1:61: in transport mode packets keep their addresses, and fd00::1 is none of 10.0.0.0/8; " + hosts},
		{"spdadd 10.0.0.0/8 224.0.0.0/4 any -P out ipsec esp/transport//require;", "1:48: " + multi},
		{"spdadd ff02::5 fd00::/8 any -P in ipsec esp/transport;", "1:41: " + multi},
		{rule + "esp/transport//unique :16384;", `1:62: the level "unique:16384" is not right; the number of unique is 0 to 16383`},
		{rule + "esp/transport//unique :;", `1:62: the level "unique:" is not right; the number of unique is 0 to 16383`},
		{rule + "esp/transport/192.0.2.1;", "1:70: the statement ends too early; a - comes here, and the other end of the rule"},
		{rule + "esp/transport/192.0.2.1-2001:db8::2/require;", "1:61: 192.0.2.1 and 2001:db8::2 are of different families; give two IPv4 or two IPv6 addresses"},
		{rule + "esp/transport/192.0.2.1-0.0.0.0/require;", "1:71: 0.0.0.0 is the address of no host; give that of a host as an end of a rule"},
		{rule + "esp/transport/me-any/require;", `1:61: "me" as the end of a rule is not supported by this version; give its address`},
		{rule + "esp/transport/192.0.2.1[4500]-192.0.2.2/require;",
			"1:70: a port at the end of a rule is not supported by this version; give the ports by the SA, with esp-udp or -natt"},
		{rule + "esp/transport//require esp/transport//require;", "1:70: a bundle of several rules is not supported by this version; write one rule to a policy"},
		{rule + "esp/transprt//require;", `1:51: "transprt" is not a known mode of a rule; did you mean transport? Known: tunnel or transport`},
		{"spdupdate 10.0.0.0/8 10.0.0.0/8 any -P out;", "1:43: the statement ends too early; the action comes here: ipsec, none or discard"},
		{"spdupdate 10.0.0.0/8 10.0.0.0/8 any -P fwd none;", "1:40: the direction fwd is not supported by this version; a policy in judges all that arrives: write in"},
		{`spdupdate tagged "x" -P in none;`, "1:11: tagged is not supported by this version; give two address ranges"},
		{rule + "esp/tunnel;", "1:57: a tunnel needs its two ends; write esp/tunnel/SRC-DST/LEVEL"},
		{rule + "esp/tunnel//require;", "1:57: a tunnel needs its two ends; write esp/tunnel/SRC-DST/LEVEL"},
		{rule + "esp/tunnel/192.0.2.1/require;", `1:67: unexpected "/"; a - comes here, and the other end of the tunnel`},
		{rule + "esp/tunnel/192.0.2.1-2001:db8::2/require;", "1:58: 192.0.2.1 and 2001:db8::2 are of different families; give two IPv4 or two IPv6 addresses"},
		{rule + "esp/tunnel/0.0.0.0-192.0.2.2/require;", "1:58: 0.0.0.0 is the address of no host; give that of a host as an end of a tunnel"},
		{rule + "esp/tunnel/192.0.2.1-0.0.0.0/require;", "1:68: 0.0.0.0 is the address of no host; give that of a host as an end of a tunnel"},
		{"spdadd fd00::/64 fd01::/64 any -P in ipsec esp/tunnel/::-2001:db8::2/require;", "1:55: :: is the address of no host; give that of a host as an end of a tunnel"},
		{rule + "esp/tunnel/192.0.2.1-239.1.1.1/require;",
			"1:68: the multicast address 239.1.1.1 as an end of a tunnel is not supported by this version; give the address of a host"},
		{rule + "esp/tunnel/me-any/require;", `1:58: "me" as the end of a tunnel is not supported by this version; give its address`},
		{rule + "esp/tunnel/192.0.2.1[4500]-192.0.2.2[4500]/require;",
			"1:67: a port at the end of a tunnel is not supported by this version; give the ports by the SA, with esp-udp or -natt"},
		{rule + "esp/tunnel/192.0.2.1-192.0.2.2/use;",
			"1:78: the level use, which lets packets out in clear when there is no SA, is not supported by this version; write require"},
		{rule + "esp/tunnel/192.0.2.1-192.0.2.2/requires;", `1:78: "requires" is not a known level; did you mean require? Known: require, unique or default`},
		{rule + "esp/tunnel/192.0.2.1-192.0.2.2/require:7;", `1:78: the level "require:7" is not right; only unique takes a number, as in unique:7`},
		{rule + "esp/tunnel/192.0.2.1-192.0.2.2/unique:16384;", `1:78: the level "unique:16384" is not right; the number of unique is 0 to 16383`},
		{rule + "esp/tunnel/192.0.2.1-192.0.2.2/require esp/tunnel/192.0.2.1-192.0.2.2/require;",
			"1:86: a bundle of several rules is not supported by this version; write one rule to a policy"},
		{rule + "esp/tunnel/192.0.2.1-192.0.2.2/require ah/transport//require;",
			"1:86: a bundle of several rules is not supported by this version; write one rule to a policy"},
	} {
		stmts, err := Parse("f", []byte(tt.src))
		if err == nil {
			t.Errorf("%s\nwas accepted", tt.src)
			continue
		}
		if got := err.Error(); got != "f:"+tt.want {
			t.Errorf("%s\ngot  %s\nwant f:%s", tt.src, got, tt.want)
		}
		if len(stmts) != 0 {
			t.Errorf("%s\nleft %v", tt.src, stmts)
		}
		if strings.Contains(err.Error(), "topsecret") || strings.Contains(err.Error(), gcmKey[2:20]) {
			t.Errorf("%s\nshows a key: %v", tt.src, err)
		}
	}
}

// TestRejectHidesKeys puts keys, and pieces of keys without quotes, where the
// parser comes upon them as something else.
func TestRejectHidesKeys(t *testing.T) {
	const head = "add 192.0.2.1 192.0.2.2 esp 0x1000 "
	for _, src := range []string{
		head + "-E null pa;topsecret;",
		head + "-E null 0xtopsecret;",
		head + "-E null\npa;topsecret;",
		head + "-E aes-cbc pa;topsecret -A hmac-sha256 " + hmacKey + ";",
		head + "-E aes-cbc pa;add topsecret;",
		head + "-E aes-cbc pa;flush topsecret;",
		head + "-E aes-cbc pa; ; topsecret",
		head + "-E aes-cbc\npa;topsecret;",
		head + "-E\naes-cbc pa;topsecret;",
		head + "-E aes-cbc \"pa\"topsecret;",
		head + "-E aes-cbc \"pa\";topsecret;",
		head + "-E aes-gcm-16 \"0123456789\n012345678\";topsecret\";",
		head + "-E aes-gcm-16 " + gcmKey + ";topsecret;",
		head + "-E aes-gcm-16 " + gcmKey + " [topsecret];",
		head + "-E topsecret;",
		head + "-E\ntopsecret;topsecret;",
		head + "-E topsecret-passphrase " + gcmKey + ";",
		head + "-E aes-cbc " + cbcKey + " -A topsecret;",
		head + "-E [topsecret;topsecret;",
		head + "-Etopsecret;",
		head + "topsecret;",
		head + "-E aes-cbc " + cbcKey + ";topsecret-dump;",
		head + "aes-cbc pa;topsecret;",
	} {
		_, err := Parse("f", []byte(src))
		if err == nil {
			t.Errorf("%s\nwas accepted", src)
			continue
		}
		if strings.Contains(err.Error(), "topsecret") {
			t.Errorf("%s\nshows a key: %v", src, err)
		}
	}
}
