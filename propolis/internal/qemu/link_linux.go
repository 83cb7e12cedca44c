package qemu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/propolis/internal/networkns"
)

// findLink looks a tap or macvtap up by name or alternative name in the
// namespace at path, the caller's own if that is empty.
func findLink(name, path string) (Link, error) {
	handle, err := netlinkIn(path)
	if err != nil {
		return Link{}, err
	}
	defer handle.Close()
	device, err := handle.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return Link{}, errors.New("there is none of that name")
	}
	if err != nil {
		return Link{}, err
	}
	attrs := device.Attrs()
	link := Link{Name: attrs.Name, Index: attrs.Index, MAC: attrs.HardwareAddr.String(), NetNS: path}
	switch kind := device.(type) {
	case *netlink.Tuntap:
		if kind.Mode != netlink.TUNTAP_MODE_TAP {
			return Link{}, errors.New("it is a tun device; QEMU needs a tap or a macvtap")
		}
	case *netlink.Macvtap:
		link.MacVTap = true
	default:
		return Link{}, fmt.Errorf("it is a %s device; QEMU needs a tap or a macvtap", device.Type())
	}
	return link, nil
}

func netlinkIn(path string) (*netlink.Handle, error) {
	if path == "" {
		return netlink.NewHandle(unix.NETLINK_ROUTE)
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
}

// openLink opens a queue of a tap or macvtap with virtio-net headers, which
// let segments of up to 64 KiB pass whole and their checksums stay unwritten.
func openLink(link Link) (*os.File, error) {
	var f *os.File
	err := networkns.Run(link.NetNS, func() (err error) {
		if link.MacVTap {
			f, err = openMacVTap(link)
		} else {
			f, err = openTap(link.Name)
		}
		return err
	})
	if errors.Is(err, unix.EBUSY) {
		err = fmt.Errorf("%w: another process has it open", err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening network device %s: %w", link.Name, err)
	}
	return f, nil
}

func openTap(name string) (*os.File, error) {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := setQueue(f, name); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// setQueue makes f a queue of the device name.
func setQueue(f *os.File, name string) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	return control(f, func(fd int) error { return unix.IoctlIfreq(fd, unix.TUNSETIFF, req) })
}

// openLooseTap makes a tap in a network namespace that holds nothing else. Both
// go with the descriptor.
func openLooseTap() (*os.File, error) {
	type opened struct {
		file *os.File
		err  error
	}
	result := make(chan opened)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with us
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- opened{nil, fmt.Errorf("making a network namespace: %w", err)}
			return
		}
		file, err := openTap("template")
		result <- opened{file, err}
	}()
	r := <-result
	if r.err != nil {
		return nil, fmt.Errorf("making a tap for a template: %w", r.err)
	}
	return r.file, nil
}

// openMacVTap opens the device node of a macvtap, whose name goes by the
// interface index. Namespaces may use one index twice, so look at what came.
func openMacVTap(link Link) (*os.File, error) {
	f, err := os.OpenFile(fmt.Sprintf("/dev/tap%d", link.Index), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = openMacVTapNode(link)
	}
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq("")
	if err == nil {
		err = control(f, func(fd int) error { return unix.IoctlIfreq(fd, unix.TUNGETIFF, req) })
	}
	if err == nil && req.Name() != link.Name {
		err = fmt.Errorf("%s belongs to the device %s of another namespace", f.Name(), req.Name())
	}
	if err == nil {
		err = setQueue(f, link.Name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openMacVTapNode stands in where /dev is not kept by the kernel, as in many
// containers: it makes the device node itself, for a moment.
func openMacVTapNode(link Link) (*os.File, error) {
	number, err := os.ReadFile(fmt.Sprintf("/sys/class/net/%s/tap%d/dev", link.Name, link.Index))
	if err != nil {
		return nil, fmt.Errorf("there is no /dev/tap%d, nor its number: %w", link.Index, err)
	}
	major, minor, _ := strings.Cut(strings.TrimSpace(string(number)), ":")
	maj, err1 := strconv.ParseUint(major, 10, 32)
	mnr, err2 := strconv.ParseUint(minor, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "falcon-tap-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	node := filepath.Join(dir, "tap")
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(uint32(maj), uint32(mnr)))); err != nil {
		return nil, fmt.Errorf("making the device node of %s: %w", link.Name, err)
	}
	return os.OpenFile(node, os.O_RDWR, 0)
}

// control calls f with file's descriptor without making file block.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := raw.Control(func(fd uintptr) { result = f(int(fd)) }); err != nil {
		return err
	}
	return result
}
