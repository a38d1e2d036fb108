package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"slices"

	"ipsecd/packet"
	"ipsecd/sad"
)

// namedSAs is how many SAs a report names.
const namedSAs = 5

// dropReport logs what was dropped since it last did.
type dropReport struct {
	totals [packet.NumDrops]uint64
	sas    map[*sad.SA]uint64 // those that had dropped anything, and how many packets
}

// saDrops is what an SA dropped: since the last report, and in all.
type saDrops struct {
	sa         *sad.SA
	new, total uint64
}

// log writes a line for each reason that counted, and, if any did, one for each
// of the SAs that dropped most. Where nothing was dropped it reads the reasons
// alone; else it reads all SAs once.
func (r *dropReport) log(log *slog.Logger, drops *packet.Counters, sas *sad.DB) {
	if !r.logReasons(log, drops) {
		return
	}
	for _, d := range r.worst(sas) {
		spec := d.sa.Spec()
		log.Info("dropped by SA", "sa", fmt.Sprintf("esp to %s spi 0x%08x", spec.Dst, spec.SPI),
			"packets", d.new, "total", d.total, "mostly", mostly(d.sa.Drops()).String())
	}
}

func (r *dropReport) logReasons(log *slog.Logger, drops *packet.Counters) (any bool) {
	for reason, n := range drops.All() {
		if last := r.totals[reason]; n > last {
			log.Info("dropped", "reason", reason.String(), "packets", n-last, "total", n, "help", reason.Help())
			r.totals[reason] = n
			any = true
		}
	}
	return any
}

// worst finds the SAs with the most new drops, the most first.
func (r *dropReport) worst(sas *sad.DB) (worst []saDrops) {
	seen := map[*sad.SA]uint64{}
	for sa := range sas.All() {
		drops := sa.Drops()
		if drops == nil {
			continue
		}
		d := saDrops{sa: sa}
		for _, n := range drops.All() {
			d.total += n
		}
		d.new = d.total - r.sas[sa]
		seen[sa] = d.total
		if d.new > 0 {
			worst = insertWorst(worst, d)
		}
	}
	r.sas = seen
	return worst
}

// insertWorst keeps the first namedSAs, in order.
func insertWorst(worst []saDrops, d saDrops) []saDrops {
	at, _ := slices.BinarySearchFunc(worst, d, func(a, b saDrops) int { return cmp.Compare(b.new, a.new) })
	worst = slices.Insert(worst, at, d)
	return worst[:min(len(worst), namedSAs)]
}

// mostly is the reason that counted most.
func mostly(drops *packet.Counters) (most packet.Drop) {
	for reason, n := range drops.All() {
		if n > drops.Get(most) {
			most = reason
		}
	}
	return most
}
