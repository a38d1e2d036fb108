package routes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Values of rp_filter (RFC 3704). The larger of a link's and of "all" holds.
const (
	rpStrict = 1
	rpLoose  = 2
)

const confDir = "/proc/sys/net/ipv4/conf"

// CheckRPFilter names the links, loopback apart, with strict reverse-path
// filtering. They drop what comes from a protected address by another way than
// the TUN, save sealed packets, for which the rules of a Manager make room. They
// still drop the later fragments of UDP encapsulation, which show no port, and
// leave a neighbour's ARP requests unanswered where its own address is
// protected.
func CheckRPFilter() ([]string, error) {
	entries, err := os.ReadDir(confDir)
	if err != nil {
		return nil, fmt.Errorf("reverse-path filtering: %w", err)
	}
	var strict []string
	for _, e := range entries {
		name := e.Name()
		if name == "all" || name == "default" || name == "lo" {
			continue
		}
		value, err := rpFilter(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the link went meanwhile
		}
		if err != nil {
			return nil, err
		}
		if value == rpStrict {
			strict = append(strict, name)
		}
	}
	return strict, nil
}

// loosenRPFilter makes a link take packets from any source that has a route at
// all, whatever "all" says later. Where /proc/sys cannot be written it is enough
// that the link is not strict now.
func loosenRPFilter(name string) error {
	err := os.WriteFile(rpFilterPath(name), []byte(strconv.Itoa(rpLoose)), 0o644)
	if err == nil {
		return nil
	}
	if value, readErr := rpFilter(name); readErr == nil && value != rpStrict {
		return nil
	}
	return fmt.Errorf("loose reverse-path filtering: %w", err)
}

// rpFilter returns the value that holds for a link.
func rpFilter(name string) (int, error) {
	own, err := readInt(rpFilterPath(name))
	if err != nil {
		return 0, err
	}
	all, err := readInt(rpFilterPath("all"))
	return max(own, all), err
}

func rpFilterPath(name string) string { return filepath.Join(confDir, name, "rp_filter") }

func readInt(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return n, nil
}
