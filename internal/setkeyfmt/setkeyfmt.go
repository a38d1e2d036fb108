// Package setkeyfmt prints the databases as setkey -D and setkey -D -P do:
// FreeBSD's layout to the octet, which scripts read. All functions are pure.
//
// Keys are printed, as setkey prints them: what comes out is for the operator
// who asked, never for a log.
package setkeyfmt

import (
	"fmt"
	"strconv"
	"time"

	"ipsecd/crypto/alg"
	"ipsecd/pfkey"
)

// What is printed for an empty database.
const (
	NoSAs      = "No SAD entries.\n"
	NoPolicies = "No SPD entries.\n"
)

// timeLayout has 20 characters, as many as never.
const (
	timeLayout = "Jan _2 15:04:05 2006"
	never      = "                    "
)

// AppendSA appends the block of one SA: an answer to GET or an entry of DUMP.
// Times are in now's zone.
func AppendSA(b []byte, m *pfkey.Message, now time.Time) []byte {
	b = appendAddress(b, m.Src, m.NATT, true)
	b = appendAddress(append(b, ' '), m.Dst, m.NATT, false)
	sa := orZero(m.SA)
	sa2 := orZero(m.SA2)
	b = fmt.Appendf(b, "\n\t%s mode=%s spi=%d(0x%08x) reqid=%d(0x%08x)\n", saType(m),
		name(sa2.Mode, "any", "transport", "tunnel"), sa.SPI, sa.SPI, sa2.Reqid, sa2.Reqid)
	b = appendOriginal(b, m)
	b = appendKey(b, "\tE: ", alg.Enc, sa.Enc, m.EncKey)
	b = appendKey(b, "\tA: ", alg.Auth, sa.Auth, m.AuthKey)
	b = fmt.Appendf(b, "\tseq=0x%08x replay=%d flags=0x%08x state=%s \n", sa2.Sequence, replay(m), sa.Flags,
		name(sa.State, "larval", "mature", "dying", "dead"))
	b = appendLifetimes(b, m, now)
	return fmt.Appendf(b, "\tsadb_seq=%d pid=%d refcnt=%d\n", m.Seq, m.PID, m.Reserved)
}

// orZero is what an absent extension reads as.
func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func appendAddress(b []byte, a *pfkey.Address, n *pfkey.NATT, src bool) []byte {
	b = orZero(a).Addr.AppendTo(b)
	switch {
	case n == nil:
		return b
	case src:
		return fmt.Appendf(b, "[%d]", n.SrcPort)
	}
	return fmt.Appendf(b, "[%d]", n.DstPort)
}

func saType(m *pfkey.Message) string {
	switch {
	case m.SAType == pfkey.SATypeESP && m.NATT != nil:
		return "esp-udp"
	case m.SAType == pfkey.SATypeESP:
		return "esp"
	case m.SAType == pfkey.SATypeAH:
		return "ah"
	case m.SAType == pfkey.SATypeIPComp:
		return "ipcomp"
	case m.SAType == pfkey.SATypeTCP:
		return "tcp"
	}
	return strconv.Itoa(int(m.SAType))
}

func appendOriginal(b []byte, m *pfkey.Message) []byte {
	if m.NATT == nil || m.OAI == nil && m.OAR == nil {
		return b
	}
	b = append(b, "\tNAT:"...)
	if m.OAI != nil {
		b = m.OAI.Addr.AppendTo(append(b, " OAI="...))
	}
	if m.OAR != nil {
		b = m.OAR.Addr.AppendTo(append(b, " OAR="...))
	}
	return append(b, '\n')
}

// appendKey prints an algorithm with its key, which may be missing, in groups of
// four octets, and breaks the line after each 32.
func appendKey(b []byte, head string, k alg.Kind, id uint8, key *pfkey.Key) []byte {
	if key == nil && id == 0 {
		return b
	}
	b = append(b, head...)
	if a := alg.ByID(k, id); a != nil {
		b = append(b, a.Name...)
	} else {
		b = strconv.AppendInt(b, int64(id), 10)
	}
	b = append(b, ' ')
	for i, octet := range orZero(key).Data {
		if i > 0 && i%32 == 0 {
			b = append(b, '\n')
		}
		if i%4 == 0 {
			b = append(b, ' ')
		}
		b = fmt.Appendf(b, "%02x", octet)
	}
	return append(b, '\n')
}

// replay is the window in octets of bitmap.
func replay(m *pfkey.Message) uint32 {
	if m.Replay != nil {
		return *m.Replay / 8
	}
	return uint32(orZero(m.SA).Replay)
}

func appendLifetimes(b []byte, m *pfkey.Message, now time.Time) []byte {
	if m.Current == nil {
		return b
	}
	cur, hard, soft := m.Current, orZero(m.Hard), orZero(m.Soft)
	age := uint64(0)
	if cur.AddTime != 0 {
		age = uint64(max(0, now.Unix()-int64(cur.AddTime)))
	}
	b = fmt.Appendf(b, "\tcreated: %s\tcurrent: %s\n", stamp(cur.AddTime, now), now.Format(timeLayout))
	b = fmt.Appendf(b, "\tdiff: %d(s)\thard: %d(s)\tsoft: %d(s)\n", age, hard.AddTime, soft.AddTime)
	b = fmt.Appendf(b, "\tlast: %s\thard: %d(s)\tsoft: %d(s)\n", stamp(cur.UseTime, now), hard.UseTime, soft.UseTime)
	b = fmt.Appendf(b, "\tcurrent: %d(bytes)\thard: %d(bytes)\tsoft: %d(bytes)\n", cur.Bytes, hard.Bytes, soft.Bytes)
	return fmt.Appendf(b, "\tallocated: %d\thard: %d\tsoft: %d\n", cur.Allocations, hard.Allocations, soft.Allocations)
}

// stamp is a time in Unix seconds, 0 being never.
func stamp(seconds uint64, now time.Time) string {
	if seconds == 0 {
		return never
	}
	return time.Unix(int64(seconds), 0).In(now.Location()).Format(timeLayout)
}

// name is the word of an enumeration, or its number beyond the last.
func name(v uint8, names ...string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return strconv.Itoa(int(v))
}
