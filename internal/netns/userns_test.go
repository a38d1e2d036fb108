package netns

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// playEnv makes this test binary play the part of a program that calls
// ReexecInUserNS, instead of running tests.
const playEnv = "NETNS_TEST_PLAY"

func TestMain(m *testing.M) {
	if part := os.Getenv(playEnv); part != "" {
		os.Exit(play(part))
	}
	os.Exit(m.Run())
}

func play(part string) int {
	reexeced, err := ReexecInUserNS()
	if err != nil {
		fmt.Println("refused:", err)
		return 3
	}
	fmt.Printf("reexeced=%t uid=%d\n", reexeced, os.Geteuid())
	switch part {
	case "makes a namespace":
		ns, err := New("inner")
		if err != nil {
			fmt.Println(err)
			return 1
		}
		defer ns.Close()
		return 7
	case "waits for SIGTERM":
		got := make(chan os.Signal, 1)
		signal.Notify(got, syscall.SIGTERM)
		fmt.Println("waiting")
		<-got
		return 9
	case "dies of a signal":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "is left behind":
		fmt.Println("waiting")
		time.Sleep(time.Hour)
	}
	return 0
}

// asUser returns a command that plays the part as an ordinary user: uid 65534
// where the tests run as root. It skips where the kernel gives users no user
// namespaces.
func asUser(t *testing.T, part string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(userBinary(t))
	cmd.Env = append(os.Environ(), playEnv+"="+part)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	return cmd
}

// userBinary copies the test binary to where any user may run it.
func userBinary(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "netns-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "netns.test")
	if err := os.WriteFile(path, code, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantStatus checks how the part ended and what it said.
func wantStatus(t *testing.T, err error, out string, want int, says string) {
	t.Helper()
	if strings.HasPrefix(out, "refused:") {
		if os.Getenv(RequireEnv) == "required" && os.Geteuid() == 0 {
			t.Fatal(out)
		}
		t.Skip(out)
	}
	status, err := exitStatus(err)
	if err != nil {
		t.Fatal(err)
	}
	if status != want || !strings.Contains(out, says) {
		t.Errorf("status %d with output %q, want %d with %q", status, out, want, says)
	}
}

func TestReexecInUserNS(t *testing.T) {
	for _, tt := range []struct {
		part   string
		status int
	}{
		{"makes a namespace", 7},
		{"ends well", 0},
		{"dies of a signal", 128 + int(syscall.SIGKILL)},
	} {
		t.Run(tt.part, func(t *testing.T) {
			out, err := asUser(t, tt.part).CombinedOutput()
			wantStatus(t, err, string(out), tt.status, "reexeced=true uid=0\n")
		})
	}
}

func TestReexecPassesSignalsOn(t *testing.T) {
	cmd := asUser(t, "waits for SIGTERM")
	out, lines := startPart(t, cmd)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		out += lines.Text()
	}
	wantStatus(t, cmd.Wait(), out, 9, "waiting")
}

// The process inside does not outlive the one outside, even one that had no
// time to pass anything on.
func TestReexecedEndsWithItsParent(t *testing.T) {
	cmd := asUser(t, "is left behind")
	out, lines := startPart(t, cmd)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // to the end: the pipe's last writer is gone
	}
	wantStatus(t, cmd.Wait(), out, 128+int(syscall.SIGKILL), "waiting")
}

// startPart starts cmd and returns its output up to the line "waiting", or its
// refusal.
func startPart(t *testing.T, cmd *exec.Cmd) (out string, lines *bufio.Scanner) {
	t.Helper()
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines = bufio.NewScanner(pipe)
	for lines.Scan() {
		out += lines.Text() + "\n"
		if lines.Text() == "waiting" {
			break
		}
	}
	return out, lines
}

func TestRootGoesOnAsItIs(t *testing.T) {
	if !privileged() {
		t.Skip("not privileged")
	}
	t.Setenv(marker, "")
	reexeced, err := ReexecInUserNS()
	if reexeced || err != nil {
		t.Errorf("ReexecInUserNS = %t, %v, want false, nil", reexeced, err)
	}
}

func TestExplainTUN(t *testing.T) {
	closed := filepath.Join(t.TempDir(), "tun")
	if err := os.WriteFile(closed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		cause error
		says  string
	}{
		{fs.ErrNotExist, "modprobe tun"},
		{unix.ENODEV, "no TUN driver"},
		{fs.ErrPermission, "its mode is 0600"},
		{unix.EBUSY, "busy"},
	} {
		err := explainTUN(closed, &fs.PathError{Op: "open", Path: closed, Err: tt.cause})
		if !errors.Is(err, tt.cause) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), closed) {
			t.Errorf("explanation of %v: %q, want it and %q", tt.cause, err, tt.says)
		}
	}
}

// recorder plays the test that calls Need.
type recorder struct{ skipped, failed string }

func (*recorder) Helper()                     {}
func (r *recorder) Skipf(f string, a ...any)  { r.skipped = fmt.Sprintf(f, a...) }
func (r *recorder) Fatalf(f string, a ...any) { r.failed = fmt.Sprintf(f, a...) }

func TestNeedFollowsAvailable(t *testing.T) {
	err := Available()
	for _, required := range []bool{false, true} {
		t.Setenv(RequireEnv, map[bool]string{true: "required"}[required])
		var r recorder
		Need(&r)
		if (r.skipped != "") != (err != nil && !required) || (r.failed != "") != (err != nil && required) {
			t.Errorf("required %t, Available %v: skipped %q, failed %q", required, err, r.skipped, r.failed)
		}
	}
}
