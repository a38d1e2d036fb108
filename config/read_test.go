package config

import (
	"bytes"
	"strings"
	"testing"
)

// endless never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestReadIsBounded(t *testing.T) {
	for n, want := range map[int]bool{0: true, 99: true, 100: true, 101: false} {
		src, err := readUpTo(bytes.NewReader(make([]byte, n)), 100)
		if (err == nil) != want || want && len(src) != n {
			t.Errorf("%d octets of at most 100: %d, %v", n, len(src), err)
		}
	}
	if _, err := readUpTo(endless{}, 100); err == nil || !strings.Contains(err.Error(), "100 octets") {
		t.Errorf("an endless text: %v", err)
	}
}
