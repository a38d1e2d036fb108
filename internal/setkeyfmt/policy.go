package setkeyfmt

import (
	"fmt"
	"strconv"
	"time"

	"ipsecd/config"
	"ipsecd/pfkey"
)

const (
	upperICMPv6 = 58
	// maxManualReqid ends the ids that an operator gives by unique:N; larger
	// ones are assigned.
	maxManualReqid = 16383
)

// AppendPolicy appends the block of one policy, an entry of SPDDUMP. Times are
// in now's zone.
func AppendPolicy(b []byte, m *pfkey.Message, now time.Time) []byte {
	src, dst, p := orZero(m.Src), orZero(m.Dst), orZero(m.Policy)
	b = appendSide(b, src)
	b = appendSide(append(b, ' '), dst)
	b = appendUpper(append(b, ' '), src, dst)
	b = fmt.Appendf(b, "\n\t%s %s\n", name(p.Dir, "any", "in", "out"),
		name(uint8(p.Type), "discard", "none", "ipsec", "entrust", "bypass"))
	for _, r := range p.Requests {
		b = appendRequest(b, r)
	}
	if m.Current != nil {
		b = fmt.Appendf(b, "\tcreated: %s  lastused: %s\n", stamp(m.Current.AddTime, now), stamp(m.Current.UseTime, now))
	}
	if m.Hard != nil {
		b = fmt.Appendf(b, "\tlifetime: %d(s) validtime: %d(s)\n", m.Hard.AddTime, m.Hard.UseTime)
	}
	return fmt.Appendf(b, "\tspid=%d seq=%d pid=%d scope=global \n\trefcnt=%d\n", p.ID, m.Seq, m.PID, m.Reserved)
}

// appendSide prints ADDRESS, /LENGTH unless it is a host's, and the port.
// ICMPv6 has its type and code behind the protocol instead.
func appendSide(b []byte, a pfkey.Address) []byte {
	b = a.Addr.AppendTo(b)
	if int(a.PrefixLen) != a.Addr.BitLen() {
		b = fmt.Appendf(b, "/%d", a.PrefixLen)
	}
	switch {
	case a.Proto == upperICMPv6:
		return b
	case a.Port == 0:
		return append(b, "[any]"...)
	}
	return fmt.Appendf(b, "[%d]", a.Port)
}

func appendUpper(b []byte, src, dst pfkey.Address) []byte {
	b = append(b, config.UpperName(src.Proto)...)
	if src.Proto == upperICMPv6 && (src.Port != 0 || dst.Port != 0) {
		b = fmt.Appendf(b, " %d,%d", src.Port, dst.Port)
	}
	return b
}

func appendRequest(b []byte, r pfkey.Request) []byte {
	b = fmt.Appendf(b, "\t%s/%s/", requestProto(r.Proto), name(r.Mode, "any", "transport", "tunnel"))
	if r.Src.IsValid() && r.Dst.IsValid() {
		b = r.Src.AppendTo(b)
		b = r.Dst.AppendTo(append(b, '-'))
	}
	b = append(append(b, '/'), name(r.Level, "default", "use", "require", "unique")...)
	switch {
	case r.Level != pfkey.LevelUnique || r.Reqid == 0:
	case r.Reqid <= maxManualReqid:
		b = fmt.Appendf(b, ":%d", r.Reqid)
	default:
		b = fmt.Appendf(b, "#%d", r.Reqid)
	}
	return append(b, '\n')
}

func requestProto(p uint16) string {
	switch p {
	case 50:
		return "esp"
	case 51:
		return "ah"
	case 108:
		return "ipcomp"
	}
	return strconv.Itoa(int(p))
}
