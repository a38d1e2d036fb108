package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDumpsLikeNetBSD loads files that NetBSD loaded, and compares what is
// printed with what its setkey printed, but for times, numbers that count up, and
// what FreeBSD's layout has otherwise.
func TestDumpsLikeNetBSD(t *testing.T) {
	dumps, err := filepath.Glob("../../testdata/setkey/dump/netbsd-*.D.txt")
	if err != nil || len(dumps) == 0 {
		t.Fatalf("no dumps: %v", err)
	}
	for _, dump := range dumps {
		name := strings.TrimSuffix(filepath.Base(dump), ".D.txt")
		t.Run(name, func(t *testing.T) {
			socket := startEngine(t)
			check(t, setkey(streams{}, socket, "-f", "../../testdata/setkey/ok/"+name+".conf"), result{})
			for flag, file := range map[string]string{"-D": dump, "-DP": strings.TrimSuffix(dump, "D.txt") + "DP.txt"} {
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				got := setkey(streams{}, socket, flag)
				if d := cmp.Diff(timeless(freeBSD(string(want))), timeless(got.out)); d != "" || got.status != 0 {
					t.Errorf("%s, NetBSD - ours +: status %d\n%s", flag, got.status, d)
				}
			}
		})
	}
}

type replacement struct {
	from *regexp.Regexp
	to   string
}

// netBSDs are what NetBSD prints otherwise than FreeBSD: blanks behind the
// addresses, names, no scope, and the flag of numbers that cycle, which ours never
// do.
var netBSDs = []replacement{
	{regexp.MustCompile(`(?m)^([0-9a-f.:]+ [0-9a-f.:]+) $`), "$1"},
	{regexp.MustCompile(`A: hmac-sha(256|384|512) `), "A: hmac-sha2-$1 "},
	{regexp.MustCompile(`flags=(0x[0-9a-f]{6})40 `), "flags=${1}00 "},
	{regexp.MustCompile(`255\(reserved\)`), "any"},
	{regexp.MustCompile(`(?m)^(\tspid=.*)$`), "$1 scope=global "},
}

// counters are the parts of a dump that no two dumps share.
var counters = []replacement{
	{regexp.MustCompile(`(created|current|last): [A-Z ][a-z ]{2} [0-9 ]{2} [0-9: ]{8} [0-9 ]{4}`), "$1: TIME"},
	{regexp.MustCompile(`diff: \d+`), "diff: N"},
	{regexp.MustCompile(`(spid|pid|refcnt)=\d+`), "$1=N"},
}

func freeBSD(s string) string { return replaced(s, netBSDs) }

func timeless(s string) string { return replaced(s, counters) }

func replaced(s string, list []replacement) string {
	for _, r := range list {
		s = r.from.ReplaceAllString(s, r.to)
	}
	return s
}
