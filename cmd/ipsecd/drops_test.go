package main

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"ipsecd/packet"
	"ipsecd/sad"
)

// dropBench is an engine's counters beside a database of SAs.
type dropBench struct {
	*testing.T
	report dropReport
	totals packet.Counters
	db     *sad.DB
}

// add makes the SA with the SPI.
func (b *dropBench) add(spi uint32) *sad.SA {
	b.Helper()
	sa, err := sad.NewSA(sad.Spec{
		ID:  sad.ID{Proto: sad.ProtoESP, SPI: spi, Dst: netip.MustParseAddr("192.0.2.2")},
		Src: netip.MustParseAddr("192.0.2.1"),
		Enc: 20, EncKey: bytes.Repeat([]byte{byte(spi)}, 20),
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := b.db.Add(sa); err != nil {
		b.Fatal(err)
	}
	return sa
}

func (b *dropBench) drop(sa *sad.SA, d packet.Drop, n int) {
	sa.Drop(d, n)
	b.totals.Add(d, n)
}

// lines reports, and returns what the log says but for the help texts.
func (b *dropBench) lines() (lines []string) {
	var out bytes.Buffer
	plain := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == "help" {
			return slog.Attr{}
		}
		return a
	}
	b.report.log(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: plain})), &b.totals, b.db)
	for line := range strings.Lines(out.String()) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

func (b *dropBench) want(want ...string) {
	b.Helper()
	if got := b.lines(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		b.Errorf("logged\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// Each report is of what is new since the last one, by reason and by SA.
func TestDropReport(t *testing.T) {
	b := &dropBench{T: t, db: sad.New()}
	one, two := b.add(0x1001), b.add(0x1002)
	b.want()
	b.drop(one, packet.Replayed, 3)
	b.drop(one, packet.BadICV, 4)
	b.drop(two, packet.BadICV, 1)
	b.totals.Add(packet.NoSA, 2)
	b.want("msg=dropped reason=no-sa packets=2 total=2",
		"msg=dropped reason=replayed packets=3 total=3",
		"msg=dropped reason=bad-icv packets=5 total=5",
		`msg="dropped by SA" sa="esp to 192.0.2.2 spi 0x00001001" packets=7 total=7 mostly=bad-icv`,
		`msg="dropped by SA" sa="esp to 192.0.2.2 spi 0x00001002" packets=1 total=1 mostly=bad-icv`)
	b.want()
	b.drop(two, packet.BadICV, 2)
	b.want("msg=dropped reason=bad-icv packets=2 total=7",
		`msg="dropped by SA" sa="esp to 192.0.2.2 spi 0x00001002" packets=2 total=3 mostly=bad-icv`)
}

// Of many SAs those with the most new drops are named, whatever they dropped
// before; one that was deleted is not, and one in its place counts from 0.
func TestDropReportWorst(t *testing.T) {
	b := &dropBench{T: t, db: sad.New()}
	sas := map[uint32]*sad.SA{}
	for spi := uint32(0x1001); spi <= 0x1014; spi++ {
		sas[spi] = b.add(spi)
		b.drop(sas[spi], packet.Replayed, int(0x2000-spi)*100)
	}
	b.lines()
	for spi, sa := range sas {
		b.drop(sa, packet.Replayed, int(spi-0x1000))
	}
	if _, err := b.db.Delete(sas[0x1014].Spec().ID); err != nil {
		t.Fatal(err)
	}
	b.drop(b.add(0x1014), packet.Dummy, 7000)
	got := b.lines()
	want := []string{"0x00001014", "0x00001013", "0x00001012", "0x00001011", "0x00001010"}
	if len(got) != 2+len(want) { // behind the reasons
		t.Fatalf("%d lines:\n%s", len(got), strings.Join(got, "\n"))
	}
	for i, spi := range want {
		if !strings.Contains(got[2+i], spi) {
			t.Errorf("line %d is %q, want SPI %s", i, got[2+i], spi)
		}
	}
	if len(b.report.sas) != 20 {
		t.Errorf("remembers %d SAs, want the 20 that are there", len(b.report.sas))
	}
}
