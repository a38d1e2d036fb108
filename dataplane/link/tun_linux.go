package link

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"

	"ipsecd/packet"
)

const tunPath = "/dev/net/tun"

// GSOSegs and GSOSize bound what the kernel may hand a TUN in one read, so
// that its sealed form fits one UDP send: at most 64 datagrams and 65,507
// octets.
const (
	GSOSegs = maxSegments
	GSOSize = 60000
)

// tunDevice is one queue of a TUN device with virtio headers, so that TCP and
// UDP trains and unfinished checksums pass both ways.
type tunDevice struct {
	dev tun.Device
	raw pollConn
	udp bool // the kernel takes UDP trains

	buf  []byte
	n    int
	err  error
	call func(fd uintptr) bool
}

// TUN is an Inside that has a name.
type TUN interface {
	Inside
	Name() string
}

// OpenTUN makes a TUN device. A name with %d, as in "ipsec%d", gets the first
// free number. It is an error when the device exists. The device is down.
func OpenTUN(name string) (TUN, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, tunOpenError(err)
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("TUN name %q is too long; at most 15 characters fit", name)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_MULTI_QUEUE | unix.IFF_TUN_EXCL)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		return nil, tunMakeError(name, err)
	}
	dev, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil { // the library has a file of fd by now, whose finalizer closes it
		return nil, fmt.Errorf("TUN %s: %w", name, err)
	}
	t := &tunDevice{dev: dev, buf: make([]byte, virtioLen+maxIP+1)}
	if t.raw, err = newPollConn(dev.File()); err != nil {
		dev.Close()
		return nil, err
	}
	// The library has asked for these offloads already and does not tell
	// whether it got them.
	const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_USO4 | unix.TUN_F_USO6
	t.raw.conn.Control(func(fd uintptr) { t.udp = unix.IoctlSetInt(int(fd), unix.TUNSETOFFLOAD, offloads) == nil })
	t.call = t.read
	return t, nil
}

func tunOpenError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("no %s: load the tun module (modprobe tun), or give the container the device (--device %s)", tunPath, tunPath)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission to open %s: run as root, or let your user open it (chmod 0666 %s, as udev has it)", tunPath, tunPath)
	}
	return fmt.Errorf("open %s: %w", tunPath, err)
}

func tunMakeError(name string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("no permission to make a TUN: CAP_NET_ADMIN is missing; run as root or grant it")
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EEXIST):
		return fmt.Errorf("TUN name %s is in use; choose another by --tun", name)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("TUN name %s is in use by another kind of device, or is not a valid name; choose another by --tun", name)
	}
	return fmt.Errorf("make TUN %s: %w", name, err)
}

func (t *tunDevice) Name() string {
	name, err := t.dev.Name()
	if err != nil {
		return "?"
	}
	return name
}

func (t *tunDevice) Close() error {
	t.raw.closed.Store(true)
	return t.dev.Close()
}

func (t *tunDevice) read(fd uintptr) bool {
	t.n, t.err = unix.Read(int(fd), t.buf)
	return t.err != unix.EAGAIN && t.err != unix.EINTR
}

func (t *tunDevice) Read(b *packet.Burst) error {
	if err := t.raw.Read(t.call); err != nil {
		return err
	}
	if t.err == unix.EBADFD {
		return errors.New("somebody removed the TUN device")
	}
	if t.err != nil {
		return os.NewSyscallError("read", t.err)
	}
	if t.n < virtioLen {
		return fmt.Errorf("TUN read of %d octets is shorter than its header", t.n)
	}
	fromVirtio(b, t.buf[:t.n])
	return nil
}

func (t *tunDevice) Writer() BurstWriter {
	w := &tunWriter{raw: t.raw, iovs: make([]unix.Iovec, packet.MaxBurst+2)}
	w.call = w.writev
	return w
}

// TakesUDP reports whether Writers take UDP bursts.
func (t *tunDevice) TakesUDP() bool { return t.udp }

type tunWriter struct {
	raw  pollConn
	iovs []unix.Iovec
	vnet [virtioLen]byte

	n    int
	err  syscall.Errno
	call func(fd uintptr) bool
}

func (w *tunWriter) writev(fd uintptr) bool {
	_, _, w.err = unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.iovs[0])), uintptr(w.n))
	return w.err != unix.EAGAIN && w.err != unix.EINTR
}

func (w *tunWriter) Write(b *packet.Burst) error {
	putVirtio(w.vnet[:], b)
	w.n = 0
	w.append(w.vnet[:])
	w.append(b.Head)
	for _, s := range b.Segs {
		w.append(s)
	}
	if err := w.raw.Write(w.call); err != nil {
		return err
	}
	if w.err != 0 {
		return os.NewSyscallError("write", w.err)
	}
	return nil
}

func (w *tunWriter) append(p []byte) {
	w.iovs[w.n].Base = &p[0]
	w.iovs[w.n].SetLen(len(p))
	w.n++
}
