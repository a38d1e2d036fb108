package link

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrTooBig is a packet longer than the link, or a datagram, can carry.
var ErrTooBig = errors.New("packet too big for the link")

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// socket is a non-blocking socket under the runtime's poller.
type socket struct {
	file *os.File
	raw  pollConn
}

// pollConn waits for a descriptor, and says os.ErrClosed when it is gone. The
// runtime's own RawConn says so in an error of its own that nobody can compare.
type pollConn struct {
	conn   syscall.RawConn
	closed *atomic.Bool
}

func newPollConn(f *os.File) (pollConn, error) {
	conn, err := f.SyscallConn()
	return pollConn{conn, new(atomic.Bool)}, err
}

func (c pollConn) Read(f func(fd uintptr) bool) error  { return c.check(c.conn.Read(f)) }
func (c pollConn) Write(f func(fd uintptr) bool) error { return c.check(c.conn.Write(f)) }

func (c pollConn) check(err error) error {
	if err != nil && c.closed.Load() {
		return os.ErrClosed
	}
	return err
}

func newSocket(fd int, name string) (*socket, error) {
	file := os.NewFile(uintptr(fd), name)
	raw, err := newPollConn(file)
	if err != nil {
		file.Close()
		return nil, err
	}
	return &socket{file, raw}, nil
}

func (s *socket) Close() error {
	s.raw.closed.Store(true)
	return s.file.Close()
}

// receiver reads batches of messages by recvmmsg. Its function is made once,
// so that a call allocates nothing.
type receiver struct {
	raw   pollConn
	hdrs  []mmsghdr
	iovs  []unix.Iovec
	bufs  [][]byte
	names []unix.RawSockaddrInet6 // large enough for both families
	ctls  [][]byte

	// errors says that the socket queues ICMP errors (IPV6_RECVERR). They are of
	// no use here, but without it an IPv6 raw socket learns no path MTU.
	errors bool

	n    int
	err  syscall.Errno
	call func(fd uintptr) bool
}

// newReceiver makes room for n messages of size octets each, with skip octets
// free in front, and ctl octets of control data.
func newReceiver(s *socket, n, size, skip, ctl int) *receiver {
	r := &receiver{raw: s.raw, hdrs: make([]mmsghdr, n), iovs: make([]unix.Iovec, n),
		bufs: make([][]byte, n), names: make([]unix.RawSockaddrInet6, n), ctls: make([][]byte, n)}
	for i := range n {
		r.bufs[i] = make([]byte, skip+size)
		r.ctls[i] = make([]byte, ctl)
		r.iovs[i].Base = &r.bufs[i][skip]
		r.iovs[i].SetLen(size)
		h := &r.hdrs[i].hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
	}
	r.call = r.recvmmsg
	return r
}

func (r *receiver) recvmmsg(fd uintptr) bool {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.hdrs[0])),
		uintptr(len(r.hdrs)), unix.MSG_DONTWAIT, 0, 0)
	r.n, r.err = int(n), errno
	if r.errors && errno != 0 {
		r.drain(fd)
		if fromICMP(errno) {
			r.n, r.err = 0, 0
		}
	}
	return errno != unix.EAGAIN && errno != unix.EINTR
}

// drain empties the queue of errors, which would fill the receive buffer.
func (r *receiver) drain(fd uintptr) {
	var h unix.Msghdr
	for {
		_, _, errno := unix.Syscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&h)), unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if errno != 0 {
			return
		}
	}
}

// fromICMP tells what the kernel makes of ICMP errors for a socket, which pass,
// from trouble with the socket itself.
func fromICMP(errno syscall.Errno) bool {
	switch errno {
	case unix.EMSGSIZE, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ECONNREFUSED, unix.EACCES, unix.EPROTO,
		unix.ENOPROTOOPT, unix.EHOSTDOWN, unix.EOPNOTSUPP, unix.ENONET:
		return true
	}
	return false
}

// receive blocks until there is something and returns how many messages it is,
// which may be none.
func (r *receiver) receive() (int, error) {
	for i := range r.hdrs {
		h := &r.hdrs[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		if len(r.ctls[i]) > 0 {
			h.Control = &r.ctls[i][0]
			h.SetControllen(len(r.ctls[i]))
		}
	}
	if err := r.raw.Read(r.call); err != nil {
		return 0, err
	}
	if r.err != 0 {
		return 0, r.err
	}
	return r.n, nil
}

// control calls f for each control message of message i.
func (r *receiver) control(i int, f func(level, kind int32, data []byte)) {
	b := r.ctls[i][:r.hdrs[i].hdr.Controllen]
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(b) {
			return
		}
		f(h.Level, h.Type, b[unix.CmsgLen(0):n])
		b = b[min(len(b), unix.CmsgSpace(n-unix.CmsgLen(0))):]
	}
}

// sender writes batches of messages by sendmmsg.
type sender struct {
	raw  pollConn
	hdrs []mmsghdr
	iovs []unix.Iovec
	name unix.RawSockaddrInet6 // large enough for both families

	from, to int // hdrs to send
	n        int
	err      syscall.Errno
	call     func(fd uintptr) bool
}

func newSender(s *socket, msgs, iovs int) *sender {
	w := &sender{raw: s.raw, hdrs: make([]mmsghdr, msgs), iovs: make([]unix.Iovec, iovs)}
	w.call = w.sendmmsg
	return w
}

func (w *sender) sendmmsg(fd uintptr) bool {
	n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&w.hdrs[w.from])),
		uintptr(w.to-w.from), unix.MSG_DONTWAIT, 0, 0)
	w.n, w.err = int(n), errno
	return errno != unix.EAGAIN && errno != unix.EINTR
}

// send sends the first n headers and returns how many went. It waits while the
// socket's buffer is full.
func (w *sender) send(n int) (int, error) {
	w.from, w.to = 0, n
	for w.from < n {
		if err := w.raw.Write(w.call); err != nil {
			return w.from, err
		}
		if w.err != 0 {
			return w.from, sendError(w.err)
		}
		w.from += w.n
	}
	return n, nil
}

func sendError(errno syscall.Errno) error {
	if errno == unix.EMSGSIZE {
		return ErrTooBig
	}
	return errno
}

// setDestination puts an address of the family that pkt, an IP header, is of
// into the sender's name and returns its length. IPv6 raw sockets want port 0.
func (w *sender) setDestination(pkt []byte, port uint16) uint32 {
	if pkt[0]>>4 == 6 {
		w.name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: htons(port)}
		copy(w.name.Addr[:], pkt[24:40])
		return unix.SizeofSockaddrInet6
	}
	a := (*unix.RawSockaddrInet4)(unsafe.Pointer(&w.name))
	*a = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: htons(port)}
	copy(a.Addr[:], pkt[16:20])
	return unix.SizeofSockaddrInet4
}

// htons keeps a port in network order in a field of host order.
func htons(p uint16) (n uint16) {
	b := (*[2]byte)(unsafe.Pointer(&n))
	b[0], b[1] = byte(p>>8), byte(p)
	return n
}

func ntohs(n uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&n))
	return uint16(b[0])<<8 | uint16(b[1])
}

// Buffer sizes of sockets: several bursts wait while a worker seals one.
const sockBuffer = 8 << 20

// openSocket makes a non-blocking socket, marked, with large buffers and the
// options of opts set.
func openSocket(family, kind, proto int, mark uint32, opts []sockopt) (int, error) {
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	// FORCE needs a privilege that user namespaces do not give; the limited
	// size is what is left then.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, sockBuffer) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, sockBuffer)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sockBuffer) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sockBuffer)
	}
	if mark != 0 {
		opts = append([]sockopt{{unix.SOL_SOCKET, unix.SO_MARK, int(mark), "SO_MARK"}}, opts...)
	}
	for _, o := range opts {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("setsockopt %s: %w", o.text, err)
		}
	}
	return fd, nil
}

type sockopt struct {
	level, name, value int
	text               string
}

func (w *sender) nameBytes() *byte { return (*byte)(unsafe.Pointer(&w.name)) }
