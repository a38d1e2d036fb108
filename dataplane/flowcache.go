package dataplane

import (
	"math/rand/v2"

	"ipsecd/packet"
	"ipsecd/sad"
	"ipsecd/spd"
)

// flowSlots is the size of a worker's cache.
const flowSlots = 1024

// flowCache remembers what the databases said of a flow. It is direct-mapped,
// belongs to one worker and stands before the policy lookup; entries are
// stamped with the generations they were made under.
type flowCache struct {
	seed  uint64
	slots [flowSlots]flowEntry
}

// flowEntry is one flow's policy and the SA that goes with it: outbound the
// one to seal with, inbound the one it came under; and in which mode.
type flowEntry struct {
	flow    packet.Flow
	policy  *spd.Policy
	sa      *sad.SA
	mode    sad.Mode
	verdict packet.Drop // inbound: what verify said
	filled  bool
	spdGen  uint64
	sadGen  uint64
}

func newFlowCache() *flowCache { return &flowCache{seed: rand.Uint64()} }

// slot returns the entry where the flow is, or would be.
func (c *flowCache) slot(f *packet.Flow) *flowEntry {
	return &c.slots[f.Hash(c.seed)%flowSlots]
}

// outbound returns the entry of a flow that leaves. Generations are read
// before the databases: an entry may be stamped older than it is, never newer.
func (c *flowCache) outbound(e *Engine, f *packet.Flow) *flowEntry {
	s := c.slot(f)
	spdGen, sadGen := e.SPD.Generation(spd.Out), e.SAD.Generation()
	if s.filled && s.spdGen == spdGen && s.sadGen == sadGen && s.flow == *f {
		return s
	}
	policy := e.SPD.Lookup(spd.Out, f)
	*s = flowEntry{flow: *f, policy: policy, filled: true, spdGen: spdGen, sadGen: sadGen}
	if policy != nil && policy.Action == spd.IPsec {
		s.sa, s.mode = outboundSA(e.SAD, policy, f), sad.Mode(policy.Requests[0].Mode)
	}
	return s
}

// inbound returns the entry of a flow that came under sa in a mode.
func (c *flowCache) inbound(e *Engine, f *packet.Flow, sa *sad.SA, mode sad.Mode) *flowEntry {
	s := c.slot(f)
	gen := e.SPD.Generation(spd.In)
	if s.filled && s.spdGen == gen && s.sa == sa && s.mode == mode && s.flow == *f {
		return s
	}
	policy := e.SPD.Lookup(spd.In, f)
	*s = flowEntry{flow: *f, policy: policy, sa: sa, mode: mode, verdict: verify(policy, sa, mode, f), filled: true, spdGen: gen}
	return s
}
