package config

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"ipsecd/crypto/alg"
)

// TestRoundTrip expects of any statement that the parser can make that it
// reads back as printed.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		stmts := rapid.SliceOfN(rapid.Custom(anyStatement), 1, 5).Draw(rt, "statements")
		checkRoundTrip(rt, stmts)
	})
}

func anyStatement(t *rapid.T) Statement {
	six := rapid.Bool().Draw(t, "six")
	proto := rapid.SampledFrom([]Proto{ProtoESP, ProtoESPUDP}).Draw(t, "proto")
	id := SAID{Proto: proto, Src: anyHost(t, six), Dst: anyHost(t, six), SPI: rapid.Uint32Min(minSPI).Draw(t, "spi")}
	dir := rapid.SampledFrom([]Dir{In, Out}).Draw(t, "dir")
	switch rapid.IntRange(0, 9).Draw(t, "kind") {
	case 0:
		return Get{id}
	case 1:
		return Delete{id}
	case 2:
		id.SPI = 0
		return DeleteAll{id}
	case 3:
		return SPDDelete{Sel: anySelector(t, six), Dir: dir}
	case 4:
		return SPDAdd{Sel: anySelector(t, six), Dir: dir, Action: rapid.SampledFrom([]Action{Discard, None}).Draw(t, "action")}
	case 5:
		return anyIPsec(t, six, dir)
	case 6:
		return SPDUpdate{anyIPsec(t, six, dir)}
	case 7:
		return Update{anyAdd(t, id, six)}
	case 8:
		return Update{Add{SAID: id, NATT: anyNATT(t, id.Proto, six)}}
	}
	return anyAdd(t, id, six)
}

func anyAddr(t *rapid.T, six bool) netip.Addr {
	b := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address"))
	if !six {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	b[0] |= 0x20 // not IPv4-mapped
	return netip.AddrFrom16(b)
}

// anyHost is an address that one host may have.
func anyHost(t *rapid.T, six bool) netip.Addr {
	a := anyAddr(t, six)
	switch {
	case a.IsUnspecified():
		return a.Next()
	case a.IsMulticast():
		b := a.AsSlice()
		b[0] = 0x20
		a, _ = netip.AddrFromSlice(b)
	}
	return a
}

func anyPrefix(t *rapid.T, six bool) netip.Prefix {
	a := anyAddr(t, six)
	return netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits")).Masked()
}

func anySelector(t *rapid.T, six bool) Selector {
	s := Selector{Src: anyPrefix(t, six), Dst: anyPrefix(t, six), Upper: rapid.Uint8Min(1).Draw(t, "upper")}
	if s.Upper == upperICMP || s.Upper == upperICMPv6 {
		s.Upper = map[bool]uint8{false: upperICMP, true: upperICMPv6}[six]
	}
	switch {
	case HasPorts(s.Upper):
		s.SrcPort, s.DstPort = rapid.Uint16().Draw(t, "sport"), rapid.Uint16().Draw(t, "dport")
	case s.Upper == upperICMP || s.Upper == upperICMPv6:
		s.SrcPort, s.DstPort = rapid.Uint16Range(1, 255).Draw(t, "type"), rapid.Uint16Max(255).Draw(t, "code")
	}
	return s
}

// anyIPsec has a rule that some packet of the selector can satisfy.
func anyIPsec(t *rapid.T, six bool, dir Dir) SPDAdd {
	s := SPDAdd{Sel: anySelector(t, six), Dir: dir, Action: IPsec}
	r := Rule{Proto: ProtoESP, Mode: rapid.SampledFrom([]Mode{ModeTransport, ModeTunnel}).Draw(t, "mode")}
	switch ends := rapid.Bool().Draw(t, "ends"); {
	case r.Mode == ModeTunnel:
		outer := rapid.Bool().Draw(t, "outer six")
		r.Src, r.Dst = anyHost(t, outer), anyHost(t, outer)
	case ends:
		r.Src, r.Dst = anyHost(t, six), anyHost(t, six)
		s.Sel.Src, s.Sel.Dst = anyRangeOf(t, r.Src), anyRangeOf(t, r.Dst)
	case AllMulticast(s.Sel.Src) || AllMulticast(s.Sel.Dst):
		r.Mode, r.Src, r.Dst = ModeTunnel, anyHost(t, six), anyHost(t, six)
	}
	r.Level = rapid.SampledFrom([]Level{LevelDefault, LevelRequire, LevelUnique}).Draw(t, "level")
	if r.Level == LevelUnique {
		r.Reqid = rapid.Uint32Max(maxReqid).Draw(t, "reqid")
	}
	s.Rules = []Rule{r}
	return s
}

// anyRangeOf is a range that a host is in.
func anyRangeOf(t *rapid.T, a netip.Addr) netip.Prefix {
	return netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits")).Masked()
}

func anyAdd(t *rapid.T, id SAID, six bool) Add {
	a := Add{
		SAID:   id,
		Mode:   rapid.SampledFrom([]Mode{ModeAny, ModeTransport, ModeTunnel}).Draw(t, "mode"),
		ESN:    rapid.Bool().Draw(t, "esn"),
		Pad:    rapid.SampledFrom([]Padding{PadSequential, PadRandom, PadZero}).Draw(t, "padding"),
		Replay: rapid.Uint32Max(maxReplay).Draw(t, "replay"),
		Reqid:  rapid.Uint32Max(maxReqid).Draw(t, "reqid"),
	}
	a.Enc, a.EncKey = anyAlgorithm(t, alg.Enc)
	if !alg.ByID(alg.Enc, a.Enc).Combined() {
		a.Auth, a.AuthKey = anyAlgorithm(t, alg.Auth)
	}
	if id.Proto == ProtoESPUDP || a.Mode == ModeTunnel && rapid.Bool().Draw(t, "natt") {
		a.NATT = anyNATT(t, id.Proto, six)
	}
	return a
}

func anyNATT(t *rapid.T, proto Proto, six bool) *NATT {
	port := rapid.Uint16Min(1)
	n := &NATT{SrcPort: port.Draw(t, "sport"), DstPort: port.Draw(t, "dport")}
	if proto == ProtoESP {
		n.OAI, n.OAR = anyAddr(t, six), anyAddr(t, six)
	}
	return n
}

func anyAlgorithm(t *rapid.T, k alg.Kind) (uint8, Key) {
	a := rapid.SampledFrom(alg.All(k)).Draw(t, "algorithm")
	n := (rapid.SampledFrom(a.KeyBits).Draw(t, "bits") + a.Salt) / 8
	if n == 0 {
		return a.ID, nil
	}
	return a.ID, rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "key")
}
