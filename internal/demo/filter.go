package demo

import (
	"fmt"

	"golang.org/x/net/bpf"
)

// What a frame on the wire may be.
type verdicts struct {
	inClear   uint32 // none of the others
	protected uint32 // ESP, or UDP with port 4500 on either side
	neighbour uint32 // ARP, or ICMPv6 130-136 and 143: neighbour and listener discovery
}

// wholeFrame as a verdict passes the frame, 0 keeps it back.
const wholeFrame = 1 << 18

// Protocol numbers and offsets into an Ethernet frame without VLAN tag.
const (
	etherIPv4, etherARP, etherIPv6          = 0x0800, 0x0806, 0x86dd
	protoHopByHop, protoUDP, protoESP       = 0, 17, 50
	protoICMPv6                             = 58
	atEtherType, atIPv4, atIPv6, atIPv6Next = 12, 14, 54, 20 // atIPv6: what follows its header
)

// filter is the program, for the kernel, that tells frames apart.
func filter(v verdicts) ([]bpf.Instruction, error) {
	return assemble([]any{
		bpf.LoadAbsolute{Off: atEtherType, Size: 2},
		jump{bpf.JumpEqual, etherARP, "neighbour"},
		jump{bpf.JumpEqual, etherIPv6, "ipv6"},
		jump{bpf.JumpNotEqual, etherIPv4, "inClear"},

		bpf.LoadAbsolute{Off: atIPv4 + 9, Size: 1}, // protocol
		jump{bpf.JumpEqual, protoESP, "protected"},
		jump{bpf.JumpNotEqual, protoUDP, "inClear"},
		bpf.LoadAbsolute{Off: atIPv4 + 6, Size: 2}, // fragment offset: only the first has ports
		jump{bpf.JumpBitsSet, 0x1fff, "inClear"},
		bpf.LoadMemShift{Off: atIPv4}, // X: header length
		bpf.LoadIndirect{Off: atIPv4, Size: 2},
		jump{bpf.JumpEqual, nattPort, "protected"},
		bpf.LoadIndirect{Off: atIPv4 + 2, Size: 2},
		jump{bpf.JumpEqual, nattPort, "protected"},
		jump{always, 0, "inClear"},

		label("ipv6"),
		bpf.LoadAbsolute{Off: atIPv6Next, Size: 1},
		jump{bpf.JumpEqual, protoESP, "protected"},
		jump{bpf.JumpEqual, protoUDP, "udp6"},
		bpf.LoadConstant{Dst: bpf.RegX, Val: 0}, // X: length of the options
		jump{bpf.JumpEqual, protoICMPv6, "icmp6"},
		jump{bpf.JumpNotEqual, protoHopByHop, "inClear"},
		bpf.LoadAbsolute{Off: atIPv6, Size: 1},
		jump{bpf.JumpNotEqual, protoICMPv6, "inClear"},
		bpf.LoadAbsolute{Off: atIPv6 + 1, Size: 1}, // in units of 8 octets, the first not counted
		bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 3},
		bpf.TAX{},

		label("icmp6"),
		bpf.LoadIndirect{Off: atIPv6, Size: 1}, // type
		jump{bpf.JumpEqual, 143, "neighbour"},
		jump{bpf.JumpLessThan, 130, "inClear"},
		jump{bpf.JumpGreaterThan, 136, "inClear"},
		jump{always, 0, "neighbour"},

		label("udp6"),
		bpf.LoadAbsolute{Off: atIPv6, Size: 2},
		jump{bpf.JumpEqual, nattPort, "protected"},
		bpf.LoadAbsolute{Off: atIPv6 + 2, Size: 2},
		jump{bpf.JumpEqual, nattPort, "protected"},

		label("inClear"),
		bpf.RetConstant{Val: v.inClear},
		label("protected"),
		bpf.RetConstant{Val: v.protected},
		label("neighbour"),
		bpf.RetConstant{Val: v.neighbour},
	})
}

// label names the instruction after it; jump goes there if its test of the
// accumulator holds.
type (
	label string
	jump  struct {
		cond bpf.JumpTest
		val  uint32
		to   label
	}
)

// always as the test of a jump holds.
const always bpf.JumpTest = 1 << 8

// assemble turns a program with labels into one with distances.
func assemble(program []any) ([]bpf.Instruction, error) {
	at, n := map[label]int{}, 0
	for _, line := range program {
		if name, ok := line.(label); ok {
			at[name] = n
			continue
		}
		n++
	}
	code := make([]bpf.Instruction, 0, n)
	for _, line := range program {
		switch line := line.(type) {
		case label:
		case bpf.Instruction:
			code = append(code, line)
		case jump:
			skip := at[line.to] - len(code) - 1
			if _, known := at[line.to]; !known || skip < 0 || skip > 255 {
				return nil, fmt.Errorf("filter: no jump to %q from instruction %d", line.to, len(code))
			}
			code = append(code, line.over(skip))
		}
	}
	return code, nil
}

func (j jump) over(skip int) bpf.Instruction {
	if j.cond == always {
		return bpf.Jump{Skip: uint32(skip)}
	}
	return bpf.JumpIf{Cond: j.cond, Val: j.val, SkipTrue: uint8(skip)}
}
