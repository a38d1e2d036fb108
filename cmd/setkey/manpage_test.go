package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"ipsecd/config"
	"ipsecd/control"
	"ipsecd/crypto/alg"
	"ipsecd/sad"
	"ipsecd/spd"
)

const manPage = "../../docs/man/setkey.8"

func readManPage(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(manPage)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// section is the text of the page from one heading to the next.
func section(t *testing.T, name string) string {
	t.Helper()
	_, text, found := strings.Cut(readManPage(t), "\n.Sh "+name+"\n")
	if !found {
		t.Fatalf("%s has no section %s", manPage, name)
	}
	text, _, _ = strings.Cut(text, "\n.Sh ")
	return text
}

// TestManPageOptions compares the items of the page with what parseOptions
// knows, letter by letter.
func TestManPageOptions(t *testing.T) {
	items := section(t, "DESCRIPTION")
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" {
		_, err := parseOptions([]string{"-" + string(c)})
		known := err == nil || !strings.Contains(err.Error(), "unknown option")
		listed := regexp.MustCompile(fmt.Sprintf(`(?m)^\.It Fl %c\b`, c)).MatchString(items)
		if known != listed {
			t.Errorf("-%c: setkey knows it: %v, %s has it: %v", c, known, manPage, listed)
		}
	}
}

func TestManPageAlgorithms(t *testing.T) {
	language := section(t, "LANGUAGE")
	for _, name := range append(alg.Names(alg.Enc), alg.Names(alg.Auth)...) {
		if !strings.Contains(language, "\n.It Cm "+name+" Ta ") {
			t.Errorf("%s has no %s", manPage, name)
		}
	}
}

// TestManPageExamples loads each example into a daemon's databases. The last,
// which removes what the first adds, runs behind it.
func TestManPageExamples(t *testing.T) {
	displays := regexp.MustCompile(`(?s)\.Bd -literal -offset indent\n(.*?)\.Ed\n`).FindAllStringSubmatch(section(t, "EXAMPLES"), -1)
	if len(displays) == 0 {
		t.Fatalf("%s has no examples", manPage)
	}
	for i, d := range displays {
		text := d[1]
		stmts, err := config.Parse("example", []byte(text))
		if err != nil || len(stmts) == 0 {
			t.Errorf("%d statements, %v\n%s", len(stmts), err, text)
			continue
		}
		if i == len(displays)-1 {
			text = displays[0][1] + text
		}
		daemon := control.New(control.Config{SAD: sad.New(), SPD: spd.New(), NATTPort: 4500})
		if err := daemon.Load("example", []byte(text)); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
}
