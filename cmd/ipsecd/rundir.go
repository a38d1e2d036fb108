package main

import (
	"fmt"
	"os"
	"syscall"
)

// makeRunDir makes the directory of the control socket, or makes sure that of
// one that is there nobody but root and this user can change the entries: who
// could would put a socket of his own there and be told all keys.
func makeRunDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("run directory: %w; choose another by --run-dir", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("run directory: %w; choose another by --run-dir", err)
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case !info.IsDir():
		return fmt.Errorf("run directory %s is no directory; choose another by --run-dir", dir)
	case owner != 0 && int(owner) != os.Geteuid():
		return fmt.Errorf("run directory %s belongs to user %d, who could read all keys there; choose another by --run-dir", dir, owner)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("run directory %s can be written by others; chmod 0700 it, or choose another by --run-dir", dir)
	}
	return nil
}
