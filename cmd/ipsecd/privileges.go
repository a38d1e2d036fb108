package main

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

var errPrivileges = errors.New("built with cgo, ipsecd keeps all privileges that it was started with; build it with CGO_ENABLED=0")

// dropPrivileges leaves all threads, those to come as well, CAP_NET_ADMIN (the
// TUN, routes, rules) and CAP_NET_RAW (sockets) of what capabilities there are.
// A program with cgo cannot reach all its threads: errPrivileges.
func dropPrivileges() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	const keep = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW
	data := [2]unix.CapUserData{{Effective: have[0].Effective & keep, Permitted: have[0].Permitted & keep}}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET,
		uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	switch errno {
	case 0:
		return nil
	case syscall.ENOTSUP:
		return errPrivileges
	}
	return fmt.Errorf("capset: %w", errno)
}
