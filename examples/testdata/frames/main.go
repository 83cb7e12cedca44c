// Frames sends and receives raw Ethernet frames inside a guest.
//
//	frames receive DEVICE COUNT FILE   # bind, make FILE.ready, write COUNT frames to FILE
//	frames send DEVICE FRAME…          # frames in hexadecimal digits
//
// Only frames with the source address 02:fa:1c:0e:2e:00 are received: a guest's
// kernel speaks as well.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

var source = []byte{0x02, 0xfa, 0x1c, 0x0e, 0x2e, 0x00}

// patience bounds the wait for frames.
const patience = 50 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "frames:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("want send DEVICE FRAME… or receive DEVICE COUNT FILE")
	}
	fd, err := open(args[1])
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if args[0] == "send" {
		return send(fd, args[2:])
	}
	count, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	return receive(fd, count, args[3])
}

// open opens a packet socket on a device, which it makes promiscuous.
func open(device string) (int, error) {
	dev, err := net.InterfaceByName(device)
	if err != nil {
		return -1, err
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(all))
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index}); err != nil {
		return -1, err
	}
	promiscuous := &unix.PacketMreq{Ifindex: int32(dev.Index), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, promiscuous); err != nil {
		return -1, err
	}
	// The kernel takes the outermost VLAN tag out of a frame and tells it here.
	return fd, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1)
}

func send(fd int, frames []string) error {
	for _, f := range frames {
		data, err := hex.DecodeString(f)
		if err != nil {
			return err
		}
		if _, err := unix.Write(fd, data); err != nil {
			return fmt.Errorf("sending %d bytes: %w", len(data), err)
		}
	}
	return nil
}

// receive writes frames to a file that appears when it is complete.
func receive(fd, count int, path string) error {
	if err := os.WriteFile(path+".ready", nil, 0o600); err != nil {
		return err
	}
	until := time.Now().Add(patience)
	var got bytes.Buffer
	for n := 0; n < count; {
		frame, err := next(fd, time.Until(until))
		if err != nil {
			fmt.Fprintf(&got, "after %d frames: %v\n", n, err)
			break
		}
		if len(frame) > 12 && bytes.Equal(frame[6:12], source) {
			fmt.Fprintf(&got, "%x\n", frame)
			n++
		}
	}
	if err := os.WriteFile(path+".part", got.Bytes(), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".part", path)
}

// next returns the next frame as it was on the wire.
func next(fd int, within time.Duration) ([]byte, error) {
	ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(within, 0).Milliseconds()))
	if err != nil {
		return nil, err
	}
	if ready == 0 {
		return nil, fmt.Errorf("none came within %v", patience)
	}
	frame, control := make([]byte, 65536), make([]byte, 256)
	n, cn, _, _, err := unix.Recvmsg(fd, frame, control, 0)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:cn])
	if err != nil {
		return nil, err
	}
	frame = frame[:n]
	for _, m := range messages {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA {
			frame = tagged(frame, m.Data)
		}
	}
	return frame, nil
}

// tagged puts the tag of a struct tpacket_auxdata back: its status is at offset
// 0, the tag at 16, the tag's protocol at 18.
func tagged(frame, aux []byte) []byte {
	const valid, protocolValid = 1 << 4, 1 << 6 // TP_STATUS_VLAN_VALID, …_TPID_VALID
	status := binary.NativeEndian.Uint32(aux)
	if status&valid == 0 {
		return frame
	}
	protocol := uint16(unix.ETH_P_8021Q)
	if status&protocolValid != 0 {
		protocol = binary.NativeEndian.Uint16(aux[18:])
	}
	tag := binary.BigEndian.AppendUint16(nil, protocol)
	tag = binary.BigEndian.AppendUint16(tag, binary.NativeEndian.Uint16(aux[16:]))
	return append(append(append([]byte(nil), frame[:12]...), tag...), frame[12:]...)
}
