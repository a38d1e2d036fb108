package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// marker is set in the environment of a process that ReexecInUserNS started.
const marker = "IPSECD_IN_USERNS"

// ReexecInUserNS gives an ordinary user's process what root has, inside
// namespaces of its own. It runs the program again, with the same arguments and
// files, as uid 0 of a new user namespace with new network and mount namespaces,
// passes signals on to it and exits with its status; so it does not return where
// that works, and belongs at the start of a program. In the process run again it
// returns true at once. A process that may already make network namespaces goes
// on as it is: false, nil. An error says why the kernel refused.
func ReexecInUserNS() (reexeced bool, err error) {
	if os.Getenv(marker) != "" {
		return true, nil
	}
	if privileged() {
		return false, nil
	}
	status, err := runInUserNS()
	if err != nil {
		return false, err
	}
	os.Exit(status)
	panic("unreachable")
}

// privileged reports whether the process has the capabilities that namespaces,
// links and raw sockets take.
func privileged() bool {
	const need = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return os.Geteuid() == 0
	}
	return data[0].Effective&need == need
}

// runInUserNS runs this program in its namespaces to its end and returns its
// exit status, 128 plus the number where a signal ended it.
func runInUserNS() (int, error) {
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), marker+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		// A group of its own: a terminal's Ctrl-C reaches it once, through us.
		Setpgid:   true,
		Pdeathsig: unix.SIGTERM,
	}

	// The parent-death signal comes when the forking thread ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("user namespace: %w%s", err, userNSHint())
	}
	stop := make(chan struct{})
	defer close(stop)
	go passOn(cmd.Process, signals, stop)
	return exitStatus(cmd.Wait())
}

func passOn(to *os.Process, signals <-chan os.Signal, stop <-chan struct{}) {
	for {
		select {
		case s := <-signals:
			_ = to.Signal(s) // fails only when it has ended
		case <-stop:
			return
		}
	}
}

func exitStatus(err error) (int, error) {
	if err == nil {
		return 0, nil
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return 0, err
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return exit.ExitCode(), nil
}
