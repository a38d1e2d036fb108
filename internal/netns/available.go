package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const tunDevice = "/dev/net/tun"

// Available returns nil when this process can make network namespaces and open
// TUN devices, else an error that says what is missing and what would help. An
// ordinary user's process may become able by ReexecInUserNS.
func Available() error {
	if err := tryUnshare(); err != nil {
		return err
	}
	return TUNAvailable()
}

// TUNAvailable returns nil when this process can open /dev/net/tun, else an
// error that says why not and what would help. No interface is made.
func TUNAvailable() error {
	f, err := os.OpenFile(tunDevice, os.O_RDWR, 0)
	if err == nil {
		return f.Close()
	}
	return explainTUN(tunDevice, err)
}

func explainTUN(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w; load the tun module (modprobe tun), or give the container the device (--device %s)", err, path)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w; the kernel has no TUN driver: load the tun module (modprobe tun)", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; %s; run as root, or let users open it (as root: chmod 0666 %s)", err, describe(path), path)
	}
	return err
}

// describe gives the mode and the owner of the file.
func describe(path string) string {
	fi, err := os.Stat(path)
	if err != nil {
		return err.Error()
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Sprintf("its mode is %04o", fi.Mode().Perm())
	}
	return fmt.Sprintf("its mode is %04o and its owner %s, this process is %s",
		fi.Mode().Perm(), userName(st.Uid), userName(uint32(os.Geteuid())))
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	u, err := user.LookupId(id)
	if err != nil {
		return "uid " + id
	}
	return u.Username
}

// tryUnshare makes a network namespace on a thread that ends right after.
func tryUnshare() error {
	done := make(chan error)
	go attempt(done, func() error { return unix.Unshare(unix.CLONE_NEWNET) })
	err := <-done
	if err == nil {
		return nil
	}
	err = fmt.Errorf("unshare(CLONE_NEWNET): %w", err)
	if errors.Is(err, unix.EPERM) && (os.Geteuid() != 0 || os.Getenv(marker) != "") {
		return fmt.Errorf("%w; this needs root or a user namespace%s", err, userNSHint())
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w; root here lacks CAP_SYS_ADMIN, or a seccomp filter forbids it (containers: --privileged)", err)
	}
	return err
}

// attempt runs fn on a thread that is thrown away, as fn changes it.
func attempt(done chan<- error, fn func() error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		passed := make(chan error)
		go attempt(passed, fn)
		err := <-passed
		runtime.UnlockOSThread()
		done <- err
		return
	}
	done <- fn()
}

// userNSLimits are the switches by which kernels and distributions refuse user
// namespaces to ordinary users, each with its refusing value.
var userNSLimits = []struct{ path, refuses, allow string }{
	{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"},
	{"/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"},
	{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
}

// userNSHint names the switch that refuses user namespaces, "" when none is
// seen to.
func userNSHint() string {
	if _, err := os.Stat("/proc/self/ns/user"); err != nil {
		return "; this kernel has none (CONFIG_USER_NS)"
	}
	for _, l := range userNSLimits {
		value, err := os.ReadFile(l.path)
		if err == nil && strings.TrimSpace(string(value)) == l.refuses {
			return fmt.Sprintf("; %s is %s: as root, %s", l.path, l.refuses, l.allow)
		}
	}
	return ""
}
