package control

import (
	"syscall"

	"ipsecd/crypto/alg"
	"ipsecd/pfkey"
)

// register answers with the algorithms that there are. SA type 0 asks for them
// without registering.
func (e *Engine) register(s *Session, m *pfkey.Message) (replies, error) {
	if m.SAType != pfkey.SATypeUnspec {
		if err := checkESP(m.SAType); err != nil {
			return nil, err
		}
		if s.registered {
			return nil, refuse(syscall.EEXIST, "this socket has registered for esp before")
		}
		s.registered = true
	}
	r := reply(m)
	r.SupAuth = supported(alg.Auth)
	r.SupEnc = supported(alg.Enc)
	return one(r), nil
}

func supported(kind alg.Kind) []pfkey.SupportedAlg {
	var list []pfkey.SupportedAlg
	for _, a := range alg.All(kind) {
		list = append(list, pfkey.SupportedAlg{
			ID:      a.ID,
			IVLen:   uint8(a.IV),
			MinBits: uint16(a.MinBits()),
			MaxBits: uint16(a.MaxBits()),
		})
	}
	return list
}
