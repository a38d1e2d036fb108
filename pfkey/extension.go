package pfkey

import "strconv"

// Extension numbers: RFC 2367 section 3.2 and FreeBSD's.
const (
	ExtSA              uint16 = 1
	ExtLifetimeCurrent uint16 = 2
	ExtLifetimeHard    uint16 = 3
	ExtLifetimeSoft    uint16 = 4
	ExtAddressSrc      uint16 = 5
	ExtAddressDst      uint16 = 6
	ExtKeyAuth         uint16 = 8
	ExtKeyEncrypt      uint16 = 9
	ExtSupportedAuth   uint16 = 14
	ExtSupportedEnc    uint16 = 15
	ExtPolicy          uint16 = 18
	ExtSA2             uint16 = 19
	ExtNATTType        uint16 = 20
	ExtNATTSPort       uint16 = 21
	ExtNATTDPort       uint16 = 22
	ExtNATTOAI         uint16 = 23
	ExtNATTOAR         uint16 = 24
	ExtSAReplay        uint16 = 26

	ExtErrorText uint16 = 201 // ours
)

// TypeNATT is the one value of NATT.Type, UDP_ENCAP_ESPINUDP (RFC 3948).
const TypeNATT uint8 = 2

// SA flags (sadb_sa_flags).
const (
	FlagCycSeq    uint32 = 0x040
	FlagPadRandom uint32 = 0x100
	FlagPadZero   uint32 = 0x200
	FlagPad       uint32 = 0x300 // what padding is filled with; 0 is 1, 2, 3 and on
	FlagESN       uint32 = 0x400
)

// Modes of SAs and requests.
const (
	ModeAny       uint8 = 0
	ModeTransport uint8 = 1
	ModeTunnel    uint8 = 2
)

// Directions of policies.
const (
	DirIn  uint8 = 1
	DirOut uint8 = 2
)

// Policy types.
const (
	PolicyDiscard uint16 = 0
	PolicyNone    uint16 = 1
	PolicyIPsec   uint16 = 2
)

// Levels of requests.
const (
	LevelDefault uint8 = 0
	LevelUse     uint8 = 1
	LevelRequire uint8 = 2
	LevelUnique  uint8 = 3
)

var typeNames = map[uint8]string{
	GETSPI: "GETSPI", UPDATE: "UPDATE", ADD: "ADD", DELETE: "DELETE", GET: "GET", ACQUIRE: "ACQUIRE",
	REGISTER: "REGISTER", EXPIRE: "EXPIRE", FLUSH: "FLUSH", DUMP: "DUMP", SPDUPDATE: "SPDUPDATE",
	SPDADD: "SPDADD", SPDDELETE: "SPDDELETE", SPDGET: "SPDGET", SPDDUMP: "SPDDUMP", SPDFLUSH: "SPDFLUSH", BEGIN: "BEGIN", COMMIT: "COMMIT", ABORT: "ABORT",
}

// TypeName names a message type for people; one it does not know it shows as
// "type N".
func TypeName(t uint8) string {
	if s, ok := typeNames[t]; ok {
		return s
	}
	return "type " + strconv.Itoa(int(t))
}
