package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ipsecd/config"
	"ipsecd/packet"
)

const manPage = "../../docs/man/ipsecd.8"

func readManPage(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(manPage)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// TestManPageFlags compares the items of the page with the flags of run.
func TestManPageFlags(t *testing.T) {
	var documented []string
	for _, item := range regexp.MustCompile(`(?m)^\.It Fl .*$`).FindAllString(readManPage(t), -1) {
		for _, m := range regexp.MustCompile(`Fl Fl ([\w-]+)`).FindAllStringSubmatch(item, -1) {
			documented = append(documented, m[1])
		}
	}
	run := runCommand()
	run.InitDefaultHelpFlag()
	for _, m := range regexp.MustCompile(`(?m)^ +(?:-\w, )?--([\w-]+)`).FindAllStringSubmatch(run.Flags().FlagUsages(), -1) {
		if !slices.Contains(documented, m[1]) {
			t.Errorf("--%s is not in %s", m[1], manPage)
		}
	}
	for _, name := range documented {
		if run.Flags().Lookup(name) == nil {
			t.Errorf("%s has --%s, which run has not", manPage, name)
		}
	}
}

// TestManPageDrops wants each reason in the list, with its help.
func TestManPageDrops(t *testing.T) {
	text := strings.Join(strings.Fields(readManPage(t)), " ")
	for d := packet.Kept + 1; d < packet.NumDrops; d++ {
		if want := ".It Sy " + d.String() + " " + d.Help(); !strings.Contains(text, want) {
			t.Errorf("%s has no %q", manPage, want)
		}
	}
}

func TestManPageExample(t *testing.T) {
	_, display, found := strings.Cut(readManPage(t), ".Bd -literal -offset indent\n")
	example, _, ended := strings.Cut(display, ".Ed\n")
	if !found || !ended {
		t.Fatalf("%s has no example", manPage)
	}
	if _, err := config.Parse("example", []byte(example)); err != nil {
		t.Error(err)
	}
}
