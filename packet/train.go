package packet

// Train is a row of packets made one behind the other in one buffer, on their
// way to a link. It is allocated once and used again for each burst.
type Train struct {
	Pkts [][]byte // valid until Reset

	buf  []byte
	used int
}

// NewTrain returns a train for up to MaxBurst packets and size octets.
func NewTrain(size int) *Train {
	return &Train{buf: make([]byte, size), Pkts: make([][]byte, 0, MaxBurst)}
}

// Reset forgets the packets.
func (t *Train) Reset() { t.Pkts, t.used = t.Pkts[:0], 0 }

// Next appends a packet of n octets, of any content, and returns it; nil when
// the train is full.
func (t *Train) Next(n int) []byte {
	if len(t.Pkts) == cap(t.Pkts) || n > len(t.buf)-t.used {
		return nil
	}
	p := t.buf[t.used : t.used+n : t.used+n]
	t.used += n
	t.Pkts = append(t.Pkts, p)
	return p
}
