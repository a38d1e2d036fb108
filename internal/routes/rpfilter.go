package routes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// Values of rp_filter (RFC 3704). The larger of a link's and of "all" holds.
const (
	rpStrict = 1
	rpLoose  = 2
)

// ErrStrict is the answer of Unfilter and SetupLink where the TUN filters strictly by
// reverse path and /proc/sys cannot be written: it drops what comes out of an SA from
// an address that is not routed into it.
var ErrStrict = errors.New("strict reverse-path filtering cannot be changed from here")

const confDir = "/proc/sys/net/ipv4/conf"

// rpFilters are the rp_filter settings of one network namespace, whatever thread
// reads and changes them.
type rpFilters struct{ conf *os.Root }

// openRPFilters opens those of the calling thread's namespace.
func openRPFilters() (rpFilters, error) {
	conf, err := os.OpenRoot(confDir)
	if err != nil {
		return rpFilters{}, fmt.Errorf("reverse-path filtering: %w", err)
	}
	return rpFilters{conf}, nil
}

func (f rpFilters) close() error { return f.conf.Close() }

// own returns a link's own value; fs.ErrNotExist when there is no such link.
func (f rpFilters) own(link string) (int, error) {
	text, err := f.conf.ReadFile(link + "/rp_filter")
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("rp_filter of %s: %w", link, err)
	}
	return n, nil
}

// strict tells whether a link's own value lets it filter strictly, and that of "all".
func (f rpFilters) strict(own int) (strict bool, all int, err error) {
	all, err = f.own("all")
	return max(own, all) == rpStrict, all, err
}

// writable tells whether set would work.
func (f rpFilters) writable(link string) error {
	file, err := f.conf.OpenFile(link+"/rp_filter", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return file.Close()
}

// set changes a link's own value.
func (f rpFilters) set(link string, value int) error {
	file, err := f.conf.OpenFile(link+"/rp_filter", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(strconv.Itoa(value))
	return errors.Join(err, file.Close())
}

// CheckRPFilter names the links, loopback apart, with strict reverse-path
// filtering. They drop what comes from a protected address by another way than
// the TUN, save sealed packets, for which the rules of a Manager make room. They
// still drop the later fragments of UDP encapsulation, which show no port, and
// leave a neighbour's ARP requests unanswered where its own address is
// protected; see Manager.Apply.
func CheckRPFilter() ([]string, error) {
	filters, err := openRPFilters()
	if err != nil {
		return nil, err
	}
	defer filters.close()
	entries, err := os.ReadDir(confDir)
	if err != nil {
		return nil, fmt.Errorf("reverse-path filtering: %w", err)
	}
	var links []string
	for _, e := range entries {
		name := e.Name()
		if name == "all" || name == "default" || name == loopback {
			continue
		}
		own, err := filters.own(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the link went meanwhile
		}
		strict, _, allErr := filters.strict(own)
		if err := errors.Join(err, allErr); err != nil {
			return nil, err
		}
		if strict {
			links = append(links, name)
		}
	}
	return links, nil
}

// Unfilter keeps a link from dropping packets for their source as far as a link's
// own setting can: it filters nothing, but loosely where "all" would make it strict,
// so call it again when "all" changes. Where "all" is set it still drops what comes
// from a source to which the host has no route. An error is ErrStrict when the link
// filters strictly and /proc/sys cannot be written. A link that is gone is left alone.
func Unfilter(name string) error {
	filters, err := openRPFilters()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer filters.close()
	own, err := filters.own(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	all, allErr := filters.own("all")
	if err := errors.Join(err, allErr); err != nil {
		return err
	}
	want := 0
	if all == rpStrict {
		want = rpLoose
	}
	if own == want {
		return nil
	}
	err = filters.set(name, want)
	if err == nil || max(own, all) != rpStrict {
		return nil
	}
	return fmt.Errorf("link %s: %w: %w; run: sysctl -w %s=2", name, ErrStrict, err, sysctlName(name))
}

// sysctlName is rp_filter of a link as sysctl(8) has it.
func sysctlName(link string) string {
	return "net.ipv4.conf." + strings.ReplaceAll(link, ".", "/") + ".rp_filter"
}

// filters reports whether a link does any reverse-path filtering.
func filters(name string) bool {
	f, err := openRPFilters()
	if err != nil {
		return false
	}
	defer f.close()
	own, ownErr := f.own(name)
	all, allErr := f.own("all")
	return ownErr == nil && allErr == nil && max(own, all) != 0
}
