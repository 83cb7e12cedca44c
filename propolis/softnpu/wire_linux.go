package softnpu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/propolis/internal/networkns"
)

// sendPatience is how long frames wait for a reader at the far end. QEMU holds
// a sender back in the same way when a guest is slow; a guest that does not
// read at all must not hold up for long what else waits for it.
const sendPatience = 50 * time.Millisecond

// socketBuffer is how much the kernel holds for a port in bytes.
const socketBuffer = 4 << 20

// messages are the arguments of one recvmmsg or sendmmsg. They lie at fixed
// places because the kernel has their addresses.
type messages struct {
	headers [batchFrames]mmsghdr
	iovecs  [batchFrames][2]unix.Iovec
	vnet    [batchFrames][vnetHeaderSize]byte
	control [batchFrames][controlRoom]byte
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      [unsafe.Sizeof(uintptr(0)) - 4]byte
}

// controlRoom is room for one control message with auxiliary data.
const controlRoom = 64

// prepare points the messages at frames.
func (m *messages) prepare(frames []Frame, vnet, control bool) {
	for i := range frames {
		h := &m.headers[i]
		*h = mmsghdr{}
		iov := m.iovecs[i][:0]
		if vnet {
			v := unix.Iovec{Base: &m.vnet[i][0]}
			v.SetLen(vnetHeaderSize)
			iov = append(iov, v)
		}
		d := unix.Iovec{Base: unsafe.SliceData(frames[i].Data)}
		d.SetLen(len(frames[i].Data))
		iov = append(iov, d)
		h.header.Iov = &m.iovecs[i][0]
		h.header.SetIovlen(len(iov))
		if control {
			h.header.Control = &m.control[i][0]
			h.header.SetControllen(controlRoom)
		}
	}
}

// call is recvmmsg or sendmmsg. They do not block, so the runtime is not told of
// them: it would give the processor of a call that takes long to another thread,
// which cost more than the call did.
func (m *messages) call(trap, fd uintptr, n int) (int, error) {
	for {
		done, _, errno := unix.RawSyscall6(trap, fd, uintptr(unsafe.Pointer(&m.headers)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(done), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// socket is a socket that the runtime waits for.
type socket struct {
	file *os.File
	raw  syscall.RawConn
}

// newSocket takes over a descriptor that does not block.
func newSocket(fd int, name string) (socket, error) {
	f := os.NewFile(uintptr(fd), name)
	raw, err := f.SyscallConn()
	if err != nil {
		_ = f.Close() // the error that matters is the first
		return socket{}, err
	}
	return socket{f, raw}, nil
}

// receive waits for frames.
func (s *socket) receive(m *messages, n int) (got int, err error) {
	waited := s.raw.Read(func(fd uintptr) bool {
		got, err = m.call(unix.SYS_RECVMMSG, fd, n)
		return err != unix.EAGAIN
	})
	return got, errors.Join(waited, err)
}

// send sends n frames, and waits up to a deadline for room.
func (s *socket) send(m *messages, n int) (sent int, err error) {
	waited := s.raw.Write(func(fd uintptr) bool {
		sent, err = m.call(unix.SYS_SENDMMSG, fd, n)
		return err != unix.EAGAIN
	})
	switch {
	case waited == nil:
		return sent, err
	case errors.Is(waited, os.ErrDeadlineExceeded):
		return 0, waited
	}
	return 0, fmt.Errorf("%w: %w", os.ErrClosed, waited) // there is no other reason not to wait
}

// trySend sends n frames, or fails if there is no room.
func (s *socket) trySend(m *messages, n int) (sent int, err error) {
	closed := s.raw.Control(func(fd uintptr) { sent, err = m.call(unix.SYS_SENDMMSG, fd, n) })
	return sent, errors.Join(closed, err)
}

// all gives frames to trySend or send, as many as go at a time, and stops at
// the first that does not go.
func (m *messages) all(frames []Frame, vnet bool, send func(m *messages, n int) (int, error)) (int, error) {
	done := 0
	for done < len(frames) {
		part := frames[done:min(len(frames), done+batchFrames)]
		m.prepare(part, vnet, false)
		for i := range part {
			part[i].Offload.write(&m.vnet[i])
		}
		n, err := send(m, len(part))
		runtime.KeepAlive(part)
		if err != nil {
			return done, err
		}
		done += n
	}
	return done, nil
}

// tryAll sends those frames that need not wait.
func (s *socket) tryAll(m *messages, frames []Frame, vnet bool) int {
	// The error, EAGAIN most often, comes again to who waits.
	n, _ := m.all(frames, vnet, s.trySend)
	return n
}

// writeAll sends frames, each of which may wait for a while.
func (s *socket) writeAll(m *messages, frames []Frame, vnet bool) (int, error) {
	// A deadline that cannot be set is that of a closed file, which the
	// first call reports.
	_ = s.file.SetWriteDeadline(time.Now().Add(sendPatience))
	return m.all(frames, vnet, s.send)
}

// deviceWire is a network device of the host, through a packet socket.
type deviceWire struct {
	socket
	in, out messages
}

// OpenDevice returns a wire to a network device of the host, the end of a veth
// pair say, in the network namespace at path, or in our own if that is empty.
// It reads all that arrives at the device, and what it writes leaves by it.
func OpenDevice(name, path string) (Wire, error) {
	var w *deviceWire
	err := networkns.Run(path, func() (err error) {
		w, err = openDevice(name)
		return err
	})
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: run it as root", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open network device %s for a port: %w", name, err)
	}
	return w, nil
}

func openDevice(name string) (*deviceWire, error) {
	device, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	// Protocol 0 receives nothing until all is set.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	for option, value := range map[int]int{
		unix.PACKET_VNET_HDR: 1, unix.PACKET_AUXDATA: 1, unix.PACKET_IGNORE_OUTGOING: 1,
	} {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_PACKET, option, value)
		}
	}
	if err == nil {
		err = unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP,
			&unix.PacketMreq{Ifindex: int32(device.Index), Type: unix.PACKET_MR_PROMISC})
	}
	setBuffers(fd)
	if err == nil {
		all := binary.NativeEndian.Uint16([]byte{unix.ETH_P_ALL >> 8, unix.ETH_P_ALL & 0xff})
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: device.Index})
	}
	if err != nil {
		_ = unix.Close(fd) // the error that matters is the first
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	s, err := newSocket(fd, name)
	return &deviceWire{socket: s}, err
}

// setBuffers asks for large buffers, and is content with what it gets.
func setBuffers(fd int) {
	for forced, option := range map[int]int{unix.SO_RCVBUFFORCE: unix.SO_RCVBUF, unix.SO_SNDBUFFORCE: unix.SO_SNDBUF} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, forced, socketBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, socketBuffer)
		}
	}
}

func (w *deviceWire) Offloads() bool { return true }

func (w *deviceWire) Close() error { return w.file.Close() }

func (w *deviceWire) Read(frames []Frame) (int, error) {
	frames = frames[:min(len(frames), batchFrames)]
	for {
		w.in.prepare(frames, true, true)
		n, err := w.receive(&w.in, len(frames))
		runtime.KeepAlive(frames)
		if errors.Is(err, unix.ENETDOWN) {
			continue // is said once when the device goes down; it may come up again
		}
		if err != nil {
			return 0, err
		}
		for i := range frames[:n] {
			w.received(&frames[i], i)
		}
		return n, nil
	}
}

// received takes a frame from its message.
func (w *deviceWire) received(f *Frame, i int) {
	h := &w.in.headers[i]
	length := max(0, int(h.length)-vnetHeaderSize)
	// A frame that is longer than its room is cut off; such ones are none
	// that a cable passes.
	f.Data = f.Data[:min(length, len(f.Data))]
	f.Offload.read(&w.in.vnet[i])
	if tag, ok := vlanTag(w.in.control[i][:min(int(h.header.Controllen), controlRoom)]); ok {
		f.insertTag(tag)
	}
}

// auxData is struct tpacket_auxdata of packet(7).
type auxData struct {
	status, length, snapLength uint32
	mac, net                   uint16
	vlanTCI, vlanTPID          uint16
}

// vlanTag returns the outer tag, which the kernel keeps beside a frame.
func vlanTag(control []byte) (tag [4]byte, ok bool) {
	const size = int(unsafe.Sizeof(auxData{}))
	header := unix.CmsgLen(0)
	if len(control) < header+size {
		return tag, false
	}
	c := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	if c.Level != unix.SOL_PACKET || c.Type != unix.PACKET_AUXDATA {
		return tag, false
	}
	aux := (*auxData)(unsafe.Pointer(&control[header]))
	if aux.status&unix.TP_STATUS_VLAN_VALID == 0 {
		return tag, false
	}
	tpid := uint16(etherVLAN)
	if aux.status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		tpid = aux.vlanTPID
	}
	binary.BigEndian.PutUint16(tag[:], tpid)
	binary.BigEndian.PutUint16(tag[2:], aux.vlanTCI)
	return tag, true
}

// insertTag puts a VLAN tag behind the addresses.
func (f *Frame) insertTag(tag [4]byte) {
	if len(f.Data) < 12 || len(f.Data)+4 > cap(f.Data) {
		return
	}
	f.Data = f.Data[:len(f.Data)+4]
	copy(f.Data[16:], f.Data[12:])
	copy(f.Data[12:], tag[:])
	if f.Offload.NeedsChecksum {
		f.Offload.ChecksumStart += 4
	}
	if f.Offload.HeaderLength > 0 {
		f.Offload.HeaderLength += 4
	}
}

func (w *deviceWire) TryWrite(frames []Frame) int { return w.tryAll(&w.out, frames, true) }

func (w *deviceWire) Write(frames []Frame) (int, error) {
	sent := 0
	for done := 0; done < len(frames); {
		n, err := w.writeAll(&w.out, frames[done:], true)
		sent, done = sent+n, done+n
		switch {
		case err == nil:
		case errors.Is(err, os.ErrClosed):
			return sent, err
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.ENXIO):
			return sent, nil // the device is full, down or gone
		default:
			done++ // it is this frame that the device does not take
		}
	}
	return sent, nil
}

// datagramWire is a cable of Unix datagram sockets, each end of which is bound
// to a file and sends to that of the other. What sends is a socket of its own:
// one that is connected waits for its peer to have room, but takes nothing
// from a peer that started anew.
type datagramWire struct {
	in, out   socket
	path      string // of our end, which goes with the wire
	peer      string
	connected bool

	reading, writing messages
}

// OpenSockets returns a wire of Unix datagram sockets as QEMU's "-netdev
// dgram" has them: it is bound to the file local, and sends to the file peer,
// which may be there or not, and come again after it was gone.
func OpenSockets(local, peer string) (Wire, error) {
	w := &datagramWire{path: local, peer: peer}
	var err error
	if w.in, err = datagramSocket(local); err == nil {
		if err = bindSocket(w.in.file, local); err == nil {
			w.out, err = datagramSocket(peer)
		}
		if err != nil {
			_ = w.in.file.Close() // the error that matters is the first
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open socket %s for a port: %w", local, err)
	}
	return w, nil
}

// SocketPair returns a wire, and the descriptor of its far end for a QEMU that
// inherits it. The caller closes it.
func SocketPair() (Wire, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open a pair of sockets for a port: %w", err)
	}
	setBuffers(fds[0])
	setBuffers(fds[1])
	s, err := newSocket(fds[0], "port")
	if err != nil {
		_ = unix.Close(fds[1]) // the error that matters is the first
		return nil, nil, fmt.Errorf("open a pair of sockets for a port: %w", err)
	}
	return &datagramWire{in: s, out: s, connected: true}, os.NewFile(uintptr(fds[1]), "port"), nil
}

func datagramSocket(name string) (socket, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return socket{}, err
	}
	setBuffers(fd)
	return newSocket(fd, name)
}

// bindSocket binds a socket to a file, in the place of what an earlier one has
// left there.
func bindSocket(f *os.File, path string) error {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := raw.Control(func(fd uintptr) { result = unix.Bind(int(fd), &unix.SockaddrUnix{Name: path}) }); err != nil {
		return err
	}
	return result
}

func (w *datagramWire) Offloads() bool { return false }

func (w *datagramWire) Close() error {
	err := w.in.file.Close()
	if w.out.file != w.in.file {
		err = errors.Join(err, w.out.file.Close())
	}
	if w.path != "" {
		if gone := os.Remove(w.path); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return err
}

func (w *datagramWire) Read(frames []Frame) (int, error) {
	frames = frames[:min(len(frames), batchFrames)]
	w.reading.prepare(frames, false, false)
	n, err := w.in.receive(&w.reading, len(frames))
	runtime.KeepAlive(frames)
	if err != nil {
		return 0, err
	}
	for i := range frames[:n] {
		f := &frames[i]
		f.Data = f.Data[:min(int(w.reading.headers[i].length), len(f.Data))]
		f.Offload = Offload{}
	}
	return n, nil
}

func (w *datagramWire) TryWrite(frames []Frame) int {
	if !w.connected {
		return 0
	}
	return w.out.tryAll(&w.writing, frames, false)
}

func (w *datagramWire) Write(frames []Frame) (int, error) {
	sent := 0
	for done, fresh := 0, false; done < len(frames); {
		if !w.connected {
			if err := w.connect(); errors.Is(err, os.ErrClosed) {
				return sent, err
			} else if err != nil {
				return sent, nil // nobody is there
			}
		}
		n, err := w.out.writeAll(&w.writing, frames[done:], false)
		sent, done = sent+n, done+n
		switch {
		case err == nil:
		case errors.Is(err, os.ErrClosed):
			return sent, err
		case errors.Is(err, os.ErrDeadlineExceeded):
			return sent, nil
		case errors.Is(err, unix.EMSGSIZE):
			done++ // it is this frame that does not fit
		default:
			// The peer is gone. Another may have come in its place.
			w.connected = w.peer == ""
			if fresh || w.connected {
				return sent, nil
			}
			fresh = true
		}
	}
	return sent, nil
}

func (w *datagramWire) connect() error {
	var err error
	if closed := w.out.raw.Control(func(fd uintptr) { err = unix.Connect(int(fd), &unix.SockaddrUnix{Name: w.peer}) }); closed != nil {
		return fmt.Errorf("%w: %w", os.ErrClosed, closed)
	}
	w.connected = err == nil
	return err
}
