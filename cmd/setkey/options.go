package main

import (
	"errors"
	"fmt"
	"strings"
)

// options are those of the command line.
type options struct {
	mode     byte   // one of c, f, D and F
	file     string // of -f; - with -c
	policies bool   // -P
	socket   string // -S
	help     bool
}

// reads reports whether there are statements to load.
func (o *options) reads() bool { return o.mode == 'c' || o.mode == 'f' }

// text is what the text to load is called in messages.
func (o *options) text() string {
	if o.file == "-" {
		return stdin
	}
	return o.file
}

// errUsage asks for the usage text behind the error.
var errUsage = errors.New("see the usage below")

// parseOptions reads options as getopt(3) does: glued (-DP), with the argument
// glued or not (-fFILE), and -- ends them.
func parseOptions(args []string) (o options, err error) {
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		flags := args[0][1:]
		args = args[1:]
		if flags == "-" {
			break
		}
		if args, err = o.setAll(flags, args); err != nil {
			return o, err
		}
	}
	if len(args) > 0 {
		return o, fmt.Errorf("unexpected argument %q; %w", args[0], errUsage)
	}
	return o, o.check()
}

// setAll takes the letters of one word, and gives back the words behind the
// last that they use.
func (o *options) setAll(flags string, rest []string) ([]string, error) {
	for i := range len(flags) {
		c := flags[i]
		if c != 'f' && c != 'S' {
			if err := o.set(c); err != nil {
				return nil, err
			}
			continue
		}
		if glued := flags[i+1:]; glued != "" {
			return rest, o.setArgument(c, glued)
		}
		if len(rest) == 0 {
			return nil, fmt.Errorf("-%c needs an argument; %w", c, errUsage)
		}
		return rest[1:], o.setArgument(c, rest[0])
	}
	return rest, nil
}

func (o *options) set(c byte) error {
	switch c {
	case 'c', 'D', 'F':
		if c == 'c' {
			o.file = "-"
		}
		return o.setMode(c)
	case 'P':
		o.policies = true
	case 'h':
		o.help = true
	default:
		return fmt.Errorf("unknown option -%c; %w", c, errUsage)
	}
	return nil
}

func (o *options) setArgument(c byte, arg string) error {
	if arg == "" {
		return fmt.Errorf("-%c has an empty argument; %w", c, errUsage)
	}
	if c == 'S' {
		o.socket = arg
		return nil
	}
	o.file = arg
	return o.setMode('f')
}

func (o *options) setMode(c byte) error {
	switch {
	case o.mode == 'f' && c == 'f':
		return errors.New("-f is given twice; load one file at a time")
	case o.mode != 0 && o.mode != c:
		return fmt.Errorf("-%c and -%c do not go together; give one of -f, -c, -D and -F", o.mode, c)
	}
	o.mode = c
	return nil
}

func (o *options) check() error {
	switch {
	case o.help:
		return nil
	case o.mode == 0 && o.policies:
		return errors.New("-P alone does nothing; give -D -P to print policies or -F -P to remove them")
	case o.mode == 0:
		return fmt.Errorf("nothing to do; %w", errUsage)
	case o.policies && strings.IndexByte("cf", o.mode) >= 0:
		return fmt.Errorf("-P does not go with -%c; it goes with -D or -F", o.mode)
	}
	return nil
}
