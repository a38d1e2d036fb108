package dataplane

import (
	"math/rand/v2"

	"ipsecd/dataplane/xform"
	"ipsecd/packet"
	"ipsecd/sad"
)

// worker is what the workers of both directions have: one goroutine's own part
// of the engine.
type worker struct {
	e     *Engine
	x     *xform.Worker
	cache *flowCache

	sas    *sad.Reader // keeps alive what a burst got from the SAD
	sadGen uint64      // at the last burst
}

func newWorker(e *Engine) worker {
	return worker{e: e, x: xform.NewWorker(uint16(rand.Uint32())), cache: newFlowCache(), sas: e.SAD.NewReader()}
}

// enter begins a burst: the SAs that it finds keep their keys until leave.
func (w *worker) enter() {
	w.sas.Enter()
	if gen := w.e.SAD.Generation(); gen != w.sadGen {
		w.x.Forget()
		w.sadGen = gen
	}
}

// leave ends a burst. It holds no SA that may have been removed meanwhile.
func (w *worker) leave() { w.sas.Leave() }

// drop counts n packets under d, and under their SA unless that is nil.
func (w *worker) drop(sa *sad.SA, d packet.Drop, n int) {
	w.e.Drops.Add(d, n)
	if sa != nil && d != packet.Kept && n > 0 {
		sa.Drop(d, n)
	}
}
