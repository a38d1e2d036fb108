package routes

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockTable makes the routing table this Manager's until the file is closed or
// the process ends, however it ends. The lock is the name of a socket in the
// abstract namespace, which each network namespace has for itself. An error is
// ErrTableInUse when another process, or another Manager of this one, has it.
func lockTable() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("lock of table %d: %w", table, err)
	}
	name := fmt.Sprintf("@ipsecd-table-%d", table)
	lock := os.NewFile(uintptr(fd), name)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
	if err == nil {
		return lock, nil
	}
	if errors.Is(err, unix.EADDRINUSE) {
		err = fmt.Errorf("%w: another ipsecd of this network namespace routes by table %d; "+
			"stop it, or run this one with --routes off", ErrTableInUse, table)
	} else {
		err = fmt.Errorf("lock of table %d: %w", table, err)
	}
	return nil, errors.Join(err, lock.Close())
}
