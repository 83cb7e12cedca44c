package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/propolis"
)

// The test binary is also the server of a machine, and what a guest has made of
// its QEMU; both work in the folder of escapeDir.
const (
	escapeServerEnv = "QEMU_TEST_ESCAPE_SERVER"
	escaperName     = "escaper"
	escapeDir       = "FALCON_NODE" // a variable that QEMU inherits
)

func init() {
	switch {
	case filepath.Base(os.Args[0]) == escaperName:
		for _, a := range attempts() {
			if err := a.try(); err != nil {
				fmt.Fprintf(os.Stderr, "%s: no: %v\n", a.name, err)
			} else {
				fmt.Fprintf(os.Stderr, "%s: yes\n", a.name)
			}
		}
		os.Exit(0)
	case os.Getenv(escapeServerEnv) != "":
		serveEscaper()
		os.Exit(0)
	}
}

// serveEscaper starts a machine as any, whose QEMU is the escaper.
func serveEscaper() {
	dir := os.Getenv(escapeDir)
	components := propolis.Components{}
	if _, err := os.Stat(filepath.Join(dir, "own.link")); err == nil {
		components = nicOn("net0", 8, "dgram:own.link/a?peer=own.link/b&mac=02:00:00:00:00:01")
	}
	spec := spec(merge(diskOn(filepath.Join(dir, "own.raw")), components, propolis.Components{
		"base":         propolis.VirtioDisk{BackendID: "base-backing", PCIPath: at(5)},
		"base-backing": propolis.FileStorageBackend{Path: filepath.Join(dir, "base.raw"), BlockSize: 512, Readonly: true},
		"share":        propolis.P9FS{Source: filepath.Join(dir, "share"), Target: "share", PCIPath: at(6)},
	}))
	ctx, cancel := context.WithTimeout(context.Background(), bootLimit)
	defer cancel()
	_, err := Start(ctx, Config{
		ID: testID, Name: "test", Spec: spec, Firmware: FirmwareBIOS, Accel: AccelTCG, QEMU: filepath.Join(dir, escaperName),
		Template: &Template{Dir: filepath.Join(dir, "template")}, Stderr: os.Stderr,
	})
	fmt.Fprintln(os.Stderr, "server: ended:", err)
}

// attempt is something that a program in QEMU's place does. Those that are its
// own succeed.
type attempt struct {
	name string
	own  bool
	try  func() error
}

// descriptor finds among what was handed over the one that a path and an access
// mode belong to.
func descriptor(path string, mode int) (int, error) {
	for fd := 3; fd < 64; fd++ {
		link, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err == nil && flags&unix.O_ACCMODE == mode && filepath.Base(link) == filepath.Base(path) {
			return fd, nil
		}
	}
	return 0, fmt.Errorf("no descriptor of %s", path)
}

// memoryPath is where QEMU is told that the memory is.
func memoryPath() string {
	_, rest, _ := strings.Cut(strings.Join(os.Args, " "), "mem-path=")
	path, _, _ := strings.Cut(rest, ",")
	return path
}

func argument(key string) string {
	_, rest, _ := strings.Cut(strings.Join(os.Args, " "), key+"=")
	path, _, _ := strings.Cut(rest, ",")
	path, _, _ = strings.Cut(path, " ")
	return path
}

func attempts() []attempt {
	dir := os.Getenv(escapeDir)
	in := func(name string) string { return filepath.Join(dir, name) }
	server, _ := strconv.Atoi(os.Getenv("FALCON_LAB"))
	read := func(path string) func() error {
		return func() error { _, err := os.ReadFile(path); return err }
	}
	write := func(path string) func() error {
		return func() error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err == nil {
				f.Close()
			}
			return err
		}
	}
	dial := func(network, address string) func() error {
		return func() error {
			c, err := net.DialTimeout(network, address, time.Second)
			if err == nil {
				c.Close()
			}
			return err
		}
	}
	call := func(nr, a, b, c uintptr) func() error {
		return func() error {
			if r, _, e := unix.RawSyscall(nr, a, b, c); e != 0 {
				return e
			} else if r == ^uintptr(0) {
				return errors.New("refused")
			}
			return nil
		}
	}
	reopened := func(name string, mode int) func() error {
		return func() error {
			fd, err := descriptor(name, unix.O_RDONLY)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), mode, 0)
			if err == nil {
				f.Close()
			}
			return err
		}
	}
	onBase := func(f func(fd int, path string) error) func() error {
		return func() error {
			fd, err := descriptor("base.raw", unix.O_RDONLY)
			if err != nil {
				return err
			}
			return f(fd, fmt.Sprintf("/proc/self/fd/%d", fd))
		}
	}
	socket := func(family uintptr) func() error { return call(unix.SYS_SOCKET, family, unix.SOCK_DGRAM, 0) }
	// asks succeeds if the kernel gets to see the request, whatever it is made of.
	asks := func(request uintptr) func() error {
		return func() error {
			err := call(unix.SYS_IOCTL, 2, request, 0)()
			if !errors.Is(err, unix.EPERM) {
				return nil
			}
			return err
		}
	}
	return []attempt{
		{"reading its own disk", true, func() error {
			fd, err := descriptor("own.raw", unix.O_RDWR)
			if err == nil {
				_, err = unix.Pwrite(fd, []byte("own"), 0)
			}
			return err
		}},
		{"reading its base image", true, onBase(func(fd int, _ string) error { _, err := unix.Pread(fd, make([]byte, 3), 0); return err })},
		{"reading its share", true, func() error { _, err := os.ReadFile(filepath.Join(argument(",path"), "file")); return err }},
		{"opening its template's memory", true, func() error {
			f, err := os.OpenFile(memoryPath(), os.O_RDWR, 0)
			if err == nil {
				defer f.Close()
				_, err = unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
			}
			return err
		}},
		{"binding its own socket", true, func() error {
			if argument("local.path") == "" {
				return nil
			}
			_, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: argument("local.path")})
			return err
		}},
		{"writing its template's memory", false, func() error {
			f, err := os.OpenFile(memoryPath(), os.O_RDWR, 0)
			if err == nil {
				defer f.Close()
				_, err = f.WriteAt([]byte("mine"), 0)
			}
			return err
		}},
		{"mapping its template's memory", false, func() error {
			f, err := os.OpenFile(memoryPath(), os.O_RDWR, 0)
			if err == nil {
				defer f.Close()
				_, err = unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			}
			return err
		}},
		{"writing its share", false, func() error { return os.WriteFile(filepath.Join(argument(",path"), "new"), nil, 0o600) }},
		{"opening its base image for writing", false, reopened("base.raw", os.O_RDWR)},
		{"emptying its base image", false, reopened("base.raw", os.O_RDONLY|os.O_TRUNC)},
		{"truncating its base image", false, onBase(func(_ int, path string) error { return unix.Truncate(path, 1) })},
		{"changing its base image's mode", false, onBase(func(fd int, _ string) error { return unix.Fchmod(fd, 0o666) })},
		{"linking its base image", false, onBase(func(_ int, path string) error {
			return unix.Linkat(unix.AT_FDCWD, path, unix.AT_FDCWD, filepath.Join(filepath.Dir(argument("local.path")), "base"), unix.AT_SYMLINK_FOLLOW)
		})},
		{"reading the passwords", false, read("/etc/shadow")},
		{"reading the users", false, read("/etc/passwd")},
		{"reading another's file", false, read(in("world-readable"))},
		{"reading the host's root", false, func() error { _, err := os.ReadDir("/proc/1/root/home"); return err }},
		{"reading the journal", false, read(in("journal"))},
		{"reading another disk", false, read(in("other.raw"))},
		{"writing another disk", false, write(in("other.raw"))},
		{"writing in the host's programs", false, write("/usr/bin/env")},
		{"making a folder", false, func() error {
			err := os.Mkdir("/falcon-escaped", 0o700)
			if err == nil {
				err = os.Remove("/falcon-escaped")
			}
			return err
		}},
		{"connecting to the server's API", false, dial("unix", in("api.sock"))},
		{"connecting to an abstract socket", false, dial("unix", "@falcon-escape-"+os.Getenv("FALCON_LAB"))},
		{"connecting to the loopback", false, dial("tcp", os.Getenv("FALCON_HOME"))},
		{"killing its server", false, func() error { return unix.Kill(server, 0) }},
		{"killing all", false, func() error { return unix.Kill(-1, 0) }},
		{"tracing its server", false, call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(server), 0)},
		{"reading its server's memory", false, read(fmt.Sprintf("/proc/%d/maps", server))},
		{"reading the host's processes", false, read(fmt.Sprintf("/proc/%d/environ", server))},
		{"reading the kernel's settings", false, read("/proc/sys/kernel/core_pattern")},
		{"becoming root", false, call(unix.SYS_SETUID, 0, 0, 0)},
		{"mounting", false, func() error {
			err := unix.Mount("x", in("share"), "tmpfs", 0, "")
			if errors.Is(err, unix.ENOENT) {
				err = unix.Mount("x", argument(",path"), "tmpfs", 0, "") // inside
			}
			if err == nil { // it was on the host
				err = unix.Unmount(in("share"), unix.MNT_DETACH)
			}
			return err
		}},
		{"making a user namespace", false, call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER, 0, 0)},
		{"making a device", false, func() error {
			return unix.Mknod(filepath.Join(filepath.Dir(argument("local.path")), "disk"), unix.S_IFBLK|0o600, 0x700)
		}},
		{"opening by a handle", false, func() error {
			var handle [8]byte
			return call(unix.SYS_OPEN_BY_HANDLE_AT, 0, uintptr(unsafe.Pointer(&handle)), 0)()
		}},
		{"a socket to machines", false, socket(unix.AF_VSOCK)},
		{"a socket of packets", false, socket(unix.AF_PACKET)},
		{"a socket to networks", false, socket(unix.AF_INET)},
		{"a socket to the kernel", false, socket(unix.AF_NETLINK)},
		{"keeping a network device", false, asks(unix.TUNSETPERSIST)},
		{"giving a network device away", false, asks(unix.TUNSETOWNER)},
		{"typing into a terminal", false, asks(unix.TIOCSTI)},
		{"a ring of requests", false, call(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&[120]byte{})), 0)},
	}
}

// playEscaper has the escaper try as the user, and returns what it said.
func playEscaper(t *testing.T, user *syscall.Credential, shareOwner int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "falcon-escape-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]struct {
		data []byte
		mode os.FileMode
	}{
		escaperName: {self, 0o755}, "server": {self, 0o755}, "own.raw": {make([]byte, 1<<20), 0o600}, "base.raw": {make([]byte, 1<<20), 0o600},
		"other.raw": {make([]byte, 1<<20), 0o600}, "journal": {[]byte("{}"), 0o600}, "world-readable": {[]byte("x"), 0o644},
		"template/ram": {make([]byte, 64<<20), 0o600}, "share/file": {[]byte("x"), 0o600},
	}
	if user != nil || shareOwner == os.Getuid() {
		files["own.link/none"] = files["journal"]
	}
	for name, f := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, f.data, f.mode)); err != nil {
			t.Fatal(err)
		}
		if user != nil {
			if err := errors.Join(os.Chown(path, int(user.Uid), int(user.Gid)), os.Chown(filepath.Dir(path), int(user.Uid), int(user.Gid))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if user == nil {
		for _, name := range []string{"share", "share/file"} {
			if err := os.Chown(filepath.Join(dir, name), shareOwner, shareOwner); err != nil {
				t.Fatal(err)
			}
		}
	}
	listen := func(network, address string) net.Listener {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	listen("unix", filepath.Join(dir, "api.sock"))
	if err := os.Chmod(filepath.Join(dir, "api.sock"), 0o666); err != nil {
		t.Fatal(err)
	}
	lab := strconv.Itoa(os.Getpid()) // which the escaper takes for its server's
	listen("unix", "@falcon-escape-"+lab)
	loopback := listen("tcp", "127.0.0.1:0")
	var out bytes.Buffer
	server := exec.Command(filepath.Join(dir, "server"))
	server.Dir, server.Stdout, server.Stderr = dir, &out, &out
	server.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	server.Env = append(os.Environ(), escapeServerEnv+"=1", escapeDir+"="+dir, "FALCON_LAB="+lab, "FALCON_HOME="+loopback.Addr().String())
	if err := server.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.Bytes())
	}
	return out.String()
}

// A program that stands in QEMU's place gets no further than its own disk, its own
// sockets and its own mounts, whoever has started it.
func TestWhatStandsInQEMUsPlaceDoesNotGetOut(t *testing.T) {
	type who struct {
		user       *syscall.Credential
		shareOwner int // of a folder that nobody else may read
	}
	cases := map[string]who{"user": {nil, os.Getuid()}}
	if os.Geteuid() == 0 {
		cases = map[string]who{"root": {nil, 0}, "root with a folder of a user's": {nil, 1234}, "user": {&syscall.Credential{Uid: 54321, Gid: 54321}, 54321}}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			said := playEscaper(t, c.user, c.shareOwner)
			for _, a := range attempts() {
				_, answer, tried := strings.Cut("\n"+said, "\n"+a.name+": ")
				answer, _, _ = strings.Cut(answer, "\n")
				if !tried || (answer == "yes") != a.own {
					t.Errorf("%s: %q", a.name, answer)
				}
			}
			if t.Failed() {
				t.Log(said)
			}
		})
	}
}
