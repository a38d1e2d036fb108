package routes

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Config.State holds what strictLinks were, so that the Manager after one that was
// killed can give it back: a line that names boot and network namespace, in which
// alone the rest means something, and for each link one of index, rp_filter and
// name. It is written before the link is changed.

// stateOwner names the boot and the calling thread's network namespace.
func stateOwner() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	ns, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(boot)) + " " + ns, nil
}

// recall reads what a killed instance remembered.
func (m *Manager) recall() error {
	if m.cfg.State == "" {
		return nil
	}
	var err error
	if m.owner, err = stateOwner(); err != nil {
		return fmt.Errorf("state of links: %w", err)
	}
	text, err := os.ReadFile(m.cfg.State)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("state of links: %w", err)
	}
	owner, links, _ := strings.Cut(string(text), "\n")
	if owner != m.owner {
		return nil
	}
	for line := range strings.Lines(links) {
		var index int
		var l strictLink
		if _, err := fmt.Sscanf(line, "%d %d %s\n", &index, &l.was, &l.name); err != nil {
			return fmt.Errorf("state of links: %s: %q: %w; remove the file", m.cfg.State, line, err)
		}
		m.loose[index] = l
	}
	return nil
}

func (m *Manager) remember(index int, l strictLink) {
	m.loose[index] = l
	m.save()
}

func (m *Manager) forget(index int) {
	if _, ok := m.loose[index]; ok {
		delete(m.loose, index)
		m.save()
	}
}

// save writes the state. Its loss matters only to who is killed.
func (m *Manager) save() {
	if m.cfg.State == "" {
		return
	}
	if err := m.writeState(); err != nil {
		m.cfg.Log.Warn("cannot remember which links filtered strictly; if ipsecd is killed, they stay loose", "err", err)
	}
}

func (m *Manager) writeState() error {
	if len(m.loose) == 0 {
		err := os.Remove(m.cfg.State)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	var b bytes.Buffer
	fmt.Fprintln(&b, m.owner)
	for index, l := range m.loose {
		fmt.Fprintln(&b, index, l.was, l.name)
	}
	next := m.cfg.State + ".new"
	if err := os.WriteFile(next, b.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Rename(next, m.cfg.State)
}
