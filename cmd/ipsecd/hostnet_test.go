package main

import (
	"fmt"
	"testing"

	"ipsecd/control"
	"ipsecd/sad"
	"ipsecd/spd"
)

// What is routed into the TUN, and what is kept out of it, for what policies.
func TestWanted(t *testing.T) {
	const ipsec = " ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;"
	for _, c := range []struct{ name, script, want string }{
		{"one that protects", "spdadd 10.1.0.0/16 10.2.0.0/16 any -P out" + ipsec, "[{10.2.0.0/16 10.1.0.0/16}] []"},
		{"one that discards, alone", "spdadd 10.1.0.0/16 10.2.0.0/16 tcp -P out discard;", "[{10.2.0.0/16 10.1.0.0/16}] []"},
		{"inbound ones", "spdadd 10.1.0.0/16 10.2.0.0/16 any -P in" + ipsec, "[] []"},
		{"none from everywhere before", "spdadd 0.0.0.0/0 10.2.9.0/24 any -P out none; spdadd 10.1.0.0/16 10.2.0.0/16 any -P out" + ipsec,
			"[{10.2.0.0/16 10.1.0.0/16}] [10.2.9.0/24]"},
		{"none from everywhere behind", "spdadd 10.1.0.0/16 10.2.0.0/16 any -P out" + ipsec + "spdadd 0.0.0.0/0 10.2.9.0/24 any -P out none;",
			"[{10.2.0.0/16 10.1.0.0/16}] []"},
		{"none from some", "spdadd 10.3.0.0/16 10.2.9.0/24 any -P out none; spdadd 10.1.0.0/16 10.2.0.0/16 any -P out" + ipsec,
			"[{10.2.0.0/16 10.1.0.0/16}] []"},
		{"none to a port", "spdadd 0.0.0.0/0 10.2.9.0/24[22] tcp -P out none; spdadd 10.1.0.0/16 10.2.0.0/16 any -P out" + ipsec,
			"[{10.2.0.0/16 10.1.0.0/16}] []"},
	} {
		db := spd.New()
		if err := control.New(control.Config{SAD: sad.New(), SPD: db}).Load("test", []byte(c.script)); err != nil {
			t.Fatal(err)
		}
		protect, exempt := wanted(db)
		if got := fmt.Sprint(protect, exempt); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
