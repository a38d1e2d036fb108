// Command setkey is setkey(8) for ipsecd: it reads, prints and flushes the
// databases of a running daemon, a PF_KEY client like that of the BSDs.
//
// A file is parsed as a whole first, and nothing of it is installed if a
// statement is malformed. It then goes to the daemon as one transaction, so that
// no moment between its spdflush and its last spdadd lets packets out in clear.
// A statement that the daemon refuses is reported and left out; the rest of the
// transaction is installed without it.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"ipsecd/config"
	"ipsecd/internal/pfclient"
)

const defaultSocket = "/run/ipsecd/control.sock"

const usage = `usage: setkey [-S SOCKET] -f FILE    load statements from FILE, - for standard input
       setkey [-S SOCKET] -c         load statements from standard input
       setkey [-S SOCKET] -D [-P]    print the SAs, or the policies with -P
       setkey [-S SOCKET] -F [-P]    remove the SAs, or the policies with -P
       setkey -h                     print this text

The socket is that of -S, else of $IPSECD_SOCKET, else ` + defaultSocket + `.
`

func main() {
	std := streams{os.Stdin, os.Stdout, os.Stderr, isTerminal(os.Stdin)}
	os.Exit(run(os.Args[1:], os.Getenv("IPSECD_SOCKET"), std))
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// stdin is what standard input is called in messages.
const stdin = "stdin"

// streams are what a run reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
	terminal bool // in is one
}

// run is the command; it returns the exit status.
func run(args []string, socket string, std streams) int {
	opts, err := parseOptions(args)
	if err != nil {
		fmt.Fprintf(std.err, "setkey: %v\n", err)
		if errors.Is(err, errUsage) {
			io.WriteString(std.err, usage)
		}
		return 1
	}
	if opts.help {
		io.WriteString(std.out, usage)
		return 0
	}
	if opts.socket == "" {
		opts.socket = socket
	}
	if opts.socket == "" {
		opts.socket = defaultSocket
	}
	if !carryOut(opts, std) {
		return 1
	}
	return 0
}

// carryOut reports whether all went well; what did not is on std.err.
func carryOut(opts options, std streams) bool {
	s := &session{streams: std, now: time.Now, ok: true}
	var stmts []config.Statement
	if opts.reads() && !(opts.mode == 'c' && std.terminal) {
		var err error
		if stmts, err = readAll(opts.file, std.in); err != nil {
			return s.complain(err)
		}
	}
	client, err := pfclient.Dial(opts.socket)
	if err != nil {
		return s.complain(fmt.Errorf("setkey: %w", err))
	}
	defer client.Close()
	s.client = client
	switch {
	case opts.mode == 'D':
		err = s.dump(opts.policies)
	case opts.mode == 'F':
		err = s.flush(opts.policies)
	case opts.mode == 'c' && std.terminal:
		err = s.converse()
	default:
		err = s.transaction(opts.text(), stmts)
	}
	if err != nil {
		return s.complain(fmt.Errorf("setkey: %w", err))
	}
	return s.ok
}

// readAll parses a whole file, or standard input under the name stdin. The
// error is one line for each mistake.
func readAll(file string, in io.Reader) ([]config.Statement, error) {
	if file == "-" {
		src, err := config.Read(in)
		if err != nil {
			return nil, fmt.Errorf("setkey: standard input: %w", err)
		}
		return config.Parse(stdin, src)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("setkey: %w", err)
	}
	defer f.Close()
	src, err := config.Read(f)
	if err != nil {
		return nil, fmt.Errorf("setkey: %s: %w", file, err)
	}
	return config.Parse(file, src)
}
