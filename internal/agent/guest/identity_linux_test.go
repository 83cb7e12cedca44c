package guest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write writes a file of a test's and returns its path.
func write(t testing.TB, dir, name, content string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(dir, name)
	check(t, os.WriteFile(path, []byte(content), mode))
	return path
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	check(t, err)
	return string(data)
}

func TestRewriteLeavesExactlyTheContentAndTheMode(t *testing.T) {
	dir := t.TempDir()
	for name, old := range map[string]string{"longer": "a long old content\n", "shorter": "x", "equal in part": "new\nold", "empty": ""} {
		path := write(t, dir, name, old, 0o600)
		if err := rewrite(path, "new\n", 0o644); err != nil || read(t, path) != "new\n" {
			t.Errorf("%s: %q, %v", name, read(t, path), err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
	path := filepath.Join(dir, "missing")
	if err := rewrite(path, "new\n", 0o444); err != nil || read(t, path) != "new\n" {
		t.Errorf("missing: %v", err)
	}
	// What is right is not written again.
	past := time.Unix(1, 0)
	check(t, os.Chtimes(path, past, past))
	check(t, rewrite(path, "new\n", 0o444))
	if info, err := os.Stat(path); err != nil || !info.ModTime().Equal(past) {
		t.Errorf("modified %v, %v", info.ModTime(), err)
	}
	if err := rewrite(filepath.Join(dir, "none", "x"), "", 0o644); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

func TestReadFileReadsAFileOfAnySize(t *testing.T) {
	for _, size := range []int{0, 1, 4095, 4096, 4097, 100_000} {
		want := strings.Repeat("x", size)
		got, err := readFile(write(t, t.TempDir(), "f", want, 0o600))
		if err != nil || string(got) != want {
			t.Errorf("%d bytes of %d, %v", len(got), size, err)
		}
	}
}

func TestAHostNameIsAddedOnce(t *testing.T) {
	const own = "127.0.1.1 violin\n"
	for hosts, want := range map[string]string{
		"":                                  own,
		"127.0.0.1 localhost\n":             "127.0.0.1 localhost\n" + own,
		"127.0.0.1 localhost":               "127.0.0.1 localhost\n" + own,
		"127.0.0.1\tlocalhost\tviolin\n":    "127.0.0.1\tlocalhost\tviolin\n",
		"127.0.0.1 localhost # violin\n":    "127.0.0.1 localhost # violin\n" + own,
		"10.0.0.1 violin.lab violinist\n":   "10.0.0.1 violin.lab violinist\n" + own,
		"violin 10.0.0.1\n#127.0.0.1 x\n\n": "violin 10.0.0.1\n#127.0.0.1 x\n\n" + own,
	} {
		path := write(t, t.TempDir(), "hosts", hosts, 0o644)
		for range 2 {
			if err := addHost(path, "violin"); err != nil || read(t, path) != want {
				t.Errorf("%q became %q, %v", hosts, read(t, path), err)
			}
		}
	}
}

// sshFields takes the strings off an SSH message.
func sshFields(t testing.TB, p []byte, n int) (fields [][]byte, rest []byte) {
	t.Helper()
	for range n {
		if len(p) < 4 || len(p)-4 < int(binary.BigEndian.Uint32(p)) {
			t.Fatalf("%d fields of %d, then %x", len(fields), n, p)
		}
		size := 4 + int(binary.BigEndian.Uint32(p))
		fields, p = append(fields, p[4:size]), p[size:]
	}
	return fields, p
}

// sshKey reads the two files of a host key and returns the fields of its public
// and of its private half, after the name.
func sshKey(t testing.TB, path, name, comment string) (public, private [][]byte) {
	t.Helper()
	halves := map[string]int{"ssh-ed25519": 2, "ecdsa-sha2-nistp256": 3, "ssh-rsa": 3}
	words := strings.Split(read(t, path+".pub"), " ")
	if len(words) != 3 || words[0] != name || words[2] != comment+"\n" {
		t.Fatalf("the public key is %q", words)
	}
	blob, err := base64.StdEncoding.DecodeString(words[1])
	check(t, err)
	public, rest := sshFields(t, blob, halves[name])
	if string(public[0]) != name || len(rest) > 0 {
		t.Fatalf("the public key is %q", blob)
	}
	block, rest := pem.Decode([]byte(read(t, path)))
	if block == nil || block.Type != "OPENSSH PRIVATE KEY" || len(rest) > 0 {
		t.Fatalf("the private key's file is %q", read(t, path))
	}
	content, ok := bytes.CutPrefix(block.Bytes, []byte("openssh-key-v1\x00"))
	head, content := sshFields(t, content, 3)
	if !ok || string(head[0]) != "none" || string(head[1]) != "none" || len(head[2]) > 0 || binary.BigEndian.Uint32(content) != 1 {
		t.Fatalf("the private key's file begins with %q", head)
	}
	both, rest := sshFields(t, content[4:], 2)
	inner := both[1]
	if !bytes.Equal(both[0], blob) || len(rest) > 0 || len(inner)%8 != 0 || !bytes.Equal(inner[:4], inner[4:8]) {
		t.Fatalf("the private key's file has %q", both)
	}
	private, rest = sshFields(t, inner[8:], map[string]int{"ssh-ed25519": 4, "ecdsa-sha2-nistp256": 5, "ssh-rsa": 8}[name])
	for i, b := range rest {
		if b != byte(i+1) {
			t.Errorf("the padding is %x", rest)
		}
	}
	if string(private[0]) != name || string(private[len(private)-1]) != comment {
		t.Errorf("the private key is of %q and %q", private[0], private[len(private)-1])
	}
	return public[1:], private[1 : len(private)-1]
}

func number(p []byte) *big.Int { return new(big.Int).SetBytes(p) }

func TestNewSSHKeysAreWholeAndEachIsNew(t *testing.T) {
	dir := t.TempDir()
	digest := make([]byte, 32)
	for kind, name := range map[string]string{"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2-nistp256", "rsa": "ssh-rsa"} {
		path := write(t, dir, "ssh_host_"+kind+"_key", "old", 0o600)
		check(t, renewSSHKey(path, "root@violin"))
		before := read(t, path)
		check(t, renewSSHKey(path, "root@violin"))
		if read(t, path) == before {
			t.Errorf("%s: the same key twice", kind)
		}
		public, private := sshKey(t, path, name, "root@violin")
		switch kind {
		case "ed25519":
			if !ed25519.Verify(public[0], digest, ed25519.Sign(private[1], digest)) || !bytes.Equal(public[0], private[0]) {
				t.Error("the halves of an ed25519 key do not match")
			}
		case "ecdsa":
			pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), public[1])
			check(t, err)
			key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), number(private[2]).FillBytes(make([]byte, 32)))
			check(t, err)
			if !key.PublicKey.Equal(pub) || string(public[0]) != "nistp256" || !slices.EqualFunc(public, private[:2], bytes.Equal) {
				t.Error("the halves of an ECDSA key do not match")
			}
		case "rsa":
			key := &rsa.PrivateKey{
				PublicKey: rsa.PublicKey{N: number(private[0]), E: int(number(private[1]).Int64())},
				D:         number(private[2]), Primes: []*big.Int{number(private[4]), number(private[5])},
			}
			check(t, key.Validate())
			inverse := new(big.Int).ModInverse(key.Primes[1], key.Primes[0])
			if number(private[3]).Cmp(inverse) != 0 || number(public[0]).Int64() != int64(key.E) || number(public[1]).Cmp(key.N) != 0 || key.N.BitLen() != rsaBits {
				t.Error("the parts of an RSA key do not match")
			}
		}
	}
}

func TestOnlyTheKindsOfHostKeysThatWereThereAreMadeAnew(t *testing.T) {
	for name, want := range map[string]struct {
		before, after []string
		late          bool
		rereads       int
	}{
		"none":     {[]string{"sshd_config"}, []string{"sshd_config"}, false, 0},
		"quick":    {[]string{"ssh_host_ed25519_key", "ssh_host_ed25519_key-cert.pub"}, []string{"ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"}, false, 1},
		"only RSA": {[]string{"ssh_host_rsa_key", "ssh_host_rsa_key.pub"}, []string{"ssh_host_rsa_key", "ssh_host_rsa_key.pub"}, false, 1},
		"all": {
			[]string{"ssh_host_dsa_key", "ssh_host_dsa_key.pub", "ssh_host_ecdsa_key", "ssh_host_rsa_key", "ssh_host_rsa_key.pub"},
			[]string{"ssh_host_ecdsa_key", "ssh_host_ecdsa_key.pub", "ssh_host_rsa_key", "ssh_host_rsa_key.pub"}, true, 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, file := range want.before {
				write(t, dir, file, "old", 0o600)
			}
			rereads := 0
			reread := func() error {
				rereads++
				files, err := filepath.Glob(filepath.Join(dir, "ssh_host_*"))
				check(t, err)
				for _, f := range files {
					if read(t, f) == "old" {
						t.Errorf("the server reads an old %s", f)
					}
				}
				return nil
			}
			late, err := renewSSHKeys(dir, reread)
			check(t, err)
			if (late != nil) != want.late {
				t.Errorf("later: %v", late != nil)
			}
			if late != nil {
				check(t, <-late)
			}
			entries, err := os.ReadDir(dir)
			check(t, err)
			var after []string
			for _, e := range entries {
				after = append(after, e.Name())
			}
			if !slices.Equal(after, want.after) || rereads != want.rereads {
				t.Errorf("%q, and the server was told %d times", after, rereads)
			}
		})
	}
	if late, err := renewSSHKeys(filepath.Join(t.TempDir(), "none"), nil); late != nil || err != nil {
		t.Errorf("without a folder: %v", err)
	}
}

func TestAMountThatFailsSaysWhatIsMissing(t *testing.T) {
	m := agent.Mount{Tag: "cargo", Target: "/opt/cargo-bay"}
	for err, want := range map[error]string{
		unix.ENODEV: "the guest cannot mount /opt/cargo-bay: its kernel must have the 9p file system, which kernels made for clouds lack",
		unix.ENOENT: "the guest cannot mount /opt/cargo-bay: it has no 9p device cargo",
		unix.EBUSY:  "the guest cannot mount /opt/cargo-bay: its device, cargo, is mounted elsewhere",
		unix.EPERM:  "the guest cannot mount /opt/cargo-bay: operation not permitted",
	} {
		if got := explainMount(m, err); got == nil || got.Error() != want {
			t.Errorf("%v: %v", err, got)
		}
	}
	if err := explainMount(m, nil); err != nil {
		t.Error(err)
	}
}

func TestMountsOfNinePAreFound(t *testing.T) {
	const info = "25 1 254:0 / / rw,noatime shared:1 - ext4 /dev/vda rw\n" +
		"31 25 0:27 / /opt/cargo-bay ro,relatime - 9p cargo ro,trans=virtio\n" +
		"32 25 0:28 / /mnt/a\\040b ro - 9p two ro\n" +
		"33 25 0:29 / /run rw - tmpfs run rw\n"
	for target, want := range map[string]bool{"/opt/cargo-bay": true, "/mnt/a b": true, "/run": false, "/": false, "/opt": false} {
		if got := mounted9p(info, target); got != want {
			t.Errorf("%s: %v", target, got)
		}
	}
}

func TestAwaitFileSeesItComeAndEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "there")
	done := make(chan error, 1)
	go func() { done <- awaitFile(within(t, 20*time.Second), path) }()
	write(t, dir, "other", "", 0o600)
	write(t, dir, "there", "", 0o600)
	check(t, <-done)
	check(t, awaitFile(within(t, 20*time.Second), path)) // which is there already

	ctx, cancel := context.WithCancel(within(t, 20*time.Second))
	go func() { done <- awaitFile(ctx, filepath.Join(dir, "none")) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "none") {
		t.Errorf("error %v", err)
	}
}

func TestInterfacesThatWereUpAreDownUntilTheyAreTakenUpAgain(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("makes a network namespace, which needs root")
	}
	runtime.LockOSThread() // for good: the thread ends with the namespace
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("this host makes no network namespaces: %v", err)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up"}, PeerName: "down"}
	check(t, netlink.LinkAdd(veth))
	up := func(name string) bool {
		link, err := netlink.LinkByName(name)
		check(t, err)
		return link.Attrs().Flags&net.FlagUp != 0
	}
	lo, err := netlink.LinkByName("lo")
	check(t, errors.Join(err, netlink.LinkSetUp(lo), netlink.LinkSetUp(veth)))
	s := &server{}
	for range 2 { // a template may be prepared twice
		names, err := s.takeDown()
		if err != nil || !slices.Equal(names, []string{"up"}) {
			t.Errorf("taken down: %q, %v", names, err)
		}
		if up("up") || up("down") || !up("lo") {
			t.Error("what should be down is up, or lo is down")
		}
	}
	check(t, s.takeUp())
	if !up("up") || up("down") {
		t.Error("what was up is down, or what was down is up")
	}
	check(t, s.takeUp())
}
