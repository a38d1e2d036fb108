package config

import (
	"fmt"
	"slices"
	"strings"
)

// words is a list of spellings, in the order in which messages give them.
type words []string

func (w words) has(s string) bool { return slices.Contains(w, s) }

// list is `a, b or c`.
func (w words) list() string {
	if len(w) < 2 {
		return strings.Join(w, "")
	}
	return strings.Join(w[:len(w)-1], ", ") + " or " + w[len(w)-1]
}

// Words of the language, and those of other setkeys that this one refuses by
// name.
var (
	statementWords = words{"add", "update", "get", "delete", "deleteall", "flush", "dump",
		"spdadd", "spdupdate", "spddelete", "spdflush", "spddump", "exit", "quit", "bye"}
	statementsElsewhere = words{"getspi", "spdsetidx"}

	protoWords      = words{"esp", "esp-udp"}
	protosElsewhere = words{"ah", "ah-old", "esp-old", "ipcomp", "tcp"}
	rulesElsewhere  = words{"ah", "ipcomp", "tcp"}

	extensionWords      = words{"-m", "-r", "-u", "-f", "-esn", "-natt"}
	extensionsElsewhere = words{"-lh", "-ls", "-bh", "-bs", "-ctx", "-esp_frag", "-hwif", "-natt_mtu", "-C", "-R"}
	algorithmOptions    = words{"-E", "-A"}

	modeWords  = words{"tunnel", "transport"}
	levelWords = words{"require", "unique", "default"}

	algorithmsElsewhere = words{
		"des-cbc", "3des-cbc", "3des-deriv", "des-deriv", "des-32iv", "blowfish-cbc", "cast128-cbc", "rc5-cbc",
		"aes-ctr", "aes-gmac", "aes-gcm-8", "aes-gcm-12", "aes-ccm-8", "aes-ccm-12", "aes-ccm-16",
		"camellia-cbc", "twofish-cbc", "serpent-cbc", "skipjack", "chacha20-poly1305",
		"hmac-md5", "hmac-ripemd160", "aes-xcbc-mac", "aes-cmac", "keyed-md5", "keyed-sha1", "md5", "sha", "tcp-md5",
	}
)

// uppers are the upper-layer protocols by name; several names may have one
// number, and upperNames tells which is printed.
var uppers = map[string]uint8{
	"any": UpperAny, "icmp": upperICMP, "igmp": 2, "ip4": 4, "ipv4": 4, "ipencap": 4, "tcp": upperTCP, "egp": 8,
	"udp": upperUDP, "dccp": 33, "ipv6": 41, "ip6": 41, "rsvp": 46, "gre": 47, "esp": 50, "ah": 51,
	"icmp6": upperICMPv6, "ipv6-icmp": upperICMPv6, "eigrp": 88, "ospf": 89, "pim": 103, "ipcomp": 108,
	"vrrp": 112, "l2tp": 115, "sctp": 132, "mh": 135, "udplite": 136,
}

// upperWords are the common ones, for messages.
var upperWords = words{"any", "tcp", "udp", "icmp", "icmp6", "gre", "sctp", "esp", "ah", "ip4", "ipv6", "ospf"}

var upperNames = map[uint8]string{
	UpperAny: "any", upperICMP: "icmp", 2: "igmp", 4: "ip4", upperTCP: "tcp", 8: "egp", upperUDP: "udp", 33: "dccp",
	41: "ipv6", 46: "rsvp", 47: "gre", 50: "esp", 51: "ah", upperICMPv6: "icmp6", 88: "eigrp", 89: "ospf", 103: "pim",
	108: "ipcomp", 112: "vrrp", 115: "l2tp", 132: "sctp", 135: "mh", 136: "udplite",
}

// UpperName is an upper-layer protocol as the language writes it: a name, or
// the number where it has none.
func UpperName(upper uint8) string {
	if name, ok := upperNames[upper]; ok {
		return name
	}
	return fmt.Sprint(upper)
}

// services are the ports that a selector may name.
var services = map[string]uint16{
	"ftp-data": 20, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "bootps": 67, "bootpc": 68,
	"tftp": 69, "http": 80, "kerberos": 88, "pop3": 110, "sunrpc": 111, "ntp": 123, "imap": 143, "snmp": 161,
	"snmptrap": 162, "bgp": 179, "ldap": 389, "https": 443, "microsoft-ds": 445, "isakmp": 500, "syslog": 514,
	"submission": 587, "ldaps": 636, "domain-s": 853, "iscsi-target": 3260, "imaps": 993, "pop3s": 995, "l2tp": 1701,
	"radius": 1812, "nfs": 2049, "mysql": 3306, "ipsec-nat-t": 4500, "vxlan": 4789, "sip": 5060, "postgresql": 5432,
}

// unknown is the error about a word that is none of known. Those that only
// other setkeys know are refused by name, near misses get a hint.
func unknown(t token, what string, known, elsewhere words) error {
	want := "use " + known.list()
	if elsewhere.has(t.text) {
		return unsupported(t.pos, t.text, want)
	}
	if near := nearest(t.text, known); near != "" {
		want = fmt.Sprintf("did you mean %s? Known: %s", near, known.list())
	}
	return fail(t.pos, fmt.Sprintf("%s is not a known %s", t.shown(), what), want)
}

// unlessNear is the token with a misspelling of one of known not hidden.
func (t token) unlessNear(known words) token {
	t.hidden = t.hidden && nearest(t.text, known) == ""
	return t
}

// nearest is the word most like s, or nothing if none is much like it.
func nearest(s string, known words) string {
	best, near := len(s)/3+1, ""
	for _, word := range known {
		d := distance(s, word)
		if len(s) > 2 && strings.HasPrefix(word, s) {
			d = 1
		}
		if d <= best && d < len(word) && (near == "" || d < best) {
			best, near = d, word
		}
	}
	return near
}

// distance counts the characters to insert, delete or replace (Levenshtein).
func distance(a, b string) int {
	if len(a) > 32 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
