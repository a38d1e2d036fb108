package config

import (
	"fmt"
	"io"
)

// MaxText is how long a setkey text may be, in octets: room for some millions of
// statements.
const MaxText = 512 << 20

// Read reads a text to its end. It refuses one that is longer than MaxText, or
// does not end at all.
func Read(r io.Reader) ([]byte, error) { return readUpTo(r, MaxText) }

func readUpTo(r io.Reader, most int64) ([]byte, error) {
	src, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(src)) > most {
		return nil, fmt.Errorf("the text does not end within %d octets; split it into several files", most)
	}
	return src, nil
}
