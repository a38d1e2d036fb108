package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what sun_path holds, less the final zero.
const maxSocketPath = 107

// Listen makes the control socket at path, for its owner alone, in a directory
// that others cannot write to. A socket that a dead process left is replaced; it
// is an error that another ipsecd answers there. Closing the listener removes
// the socket. The lock beside it, path.lock, stays: to remove it would let two
// processes hold one each.
func Listen(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%s: the path of a socket has at most %d octets; choose a shorter --run-dir", path, maxSocketPath)
	}
	lock, err := lockSocket(path)
	if err != nil {
		return nil, err
	}
	l, err := listenLocked(path)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &listener{l, sync.OnceValue(func() error { return errors.Join(l.Close(), lock.Close()) })}, nil
}

// listener holds the lock for as long as it listens. When one of several calls
// of Close returns, the path is free.
type listener struct {
	net.Listener
	close func() error
}

func (l *listener) Close() error { return l.close() }

func lockSocket(path string) (*os.File, error) {
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return lock, nil
	}
	lock.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errAnswered(path)
	}
	return nil, fmt.Errorf("lock %s.lock: %w", path, err)
}

func listenLocked(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// The mode that a socket has before bind is the one of its file.
	private := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	return private.Listen(context.Background(), "unixpacket", path)
}

// removeStale removes a socket that nobody answers on.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is no socket; remove it, or choose another --run-dir", path)
	}
	c, err := net.Dial("unixpacket", path)
	if err == nil {
		c.Close()
		return errAnswered(path)
	}
	return os.Remove(path)
}

func errAnswered(path string) error {
	return fmt.Errorf("another ipsecd answers on %s; stop it, or give this one its own --run-dir", path)
}

// checkPeer refuses a peer that is neither root nor our own user.
func checkPeer(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	if !trusted(cred.Uid) {
		return fmt.Errorf("user %d (pid %d) may not use the control socket", cred.Uid, cred.Pid)
	}
	return nil
}

func trusted(uid uint32) bool { return uid == 0 || uid == uint32(os.Geteuid()) }
