package sad

import "fmt"

// Encap is the UDP encapsulation of an SA (RFC 3948). The zero value is none.
// Ports are those of the outer header as the SA's source sends it.
type Encap struct {
	SrcPort, DstPort uint16
}

func (e Encap) check() error {
	if e.SrcPort == 0 || e.DstPort == 0 {
		return fmt.Errorf("%w: UDP encapsulation needs both ports", ErrSpec)
	}
	return nil
}

// word is e as one number, to be stored at once.
func (e Encap) word() uint32 { return uint32(e.SrcPort)<<16 | uint32(e.DstPort) }

// Encap returns the encapsulation as it is now.
func (sa *SA) Encap() Encap {
	w := sa.encap.Load()
	return Encap{SrcPort: uint16(w >> 16), DstPort: uint16(w)}
}

// SetEncap moves the SA with an ID, which is encapsulated, to other ports: its
// peer moved behind a NAT (RFC 3948 section 3.4, RFC 7296 section 2.23). An SA
// never gains or loses encapsulation.
func (db *DB) SetEncap(id ID, e Encap) error {
	if err := e.check(); err != nil {
		return err
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	sa := db.Get(id)
	if sa == nil {
		return ErrNotFound
	}
	if sa.Encap() == (Encap{}) {
		return fmt.Errorf("%w: without UDP encapsulation there are no ports to change", ErrSpec)
	}
	sa.encap.Store(e.word())
	return nil
}
