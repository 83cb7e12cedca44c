package guest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// sshFolder is where an SSH server has its host keys.
const sshFolder = "/etc/ssh"

// sshServer is where a running SSH server notes its process.
const sshServer = "/run/sshd.pid"

// rsaBits is the size of the RSA keys that ssh-keygen makes.
const rsaBits = 3072

// renewSSHKeys makes each of the SSH server's host keys anew and has the server
// read them. It does so without ssh-keygen, which takes a translated guest much
// longer to start than to make a key. What it has no way to make it removes: all
// clones would share it.
//
// An RSA key takes such a guest seconds. Where there are others it is made in
// the background, and announced by what is returned, which is else nil.
func renewSSHKeys(dir string, reread func() error) (late <-chan error, err error) {
	if !exists(dir) {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	comment := "root@" + hostname
	rsaFile, quick, removed := "", 0, 0
	for _, e := range entries {
		kind, ok := strings.CutPrefix(e.Name(), "ssh_host_")
		if !ok {
			continue
		}
		file := filepath.Join(dir, e.Name())
		switch kind {
		case "ed25519_key", "ecdsa_key":
			quick++
			err = renewSSHKey(file, comment)
		case "rsa_key":
			rsaFile = file
		case "ed25519_key.pub", "ecdsa_key.pub", "rsa_key.pub": // goes with its key
		default: // of a kind of the past, or a certificate of the old key
			removed++
			err = os.Remove(file)
		}
		if err != nil {
			return nil, err
		}
	}
	if quick+removed == 0 && rsaFile == "" {
		return nil, nil
	}
	if rsaFile != "" && quick == 0 { // a server without a key would end
		if err := renewSSHKey(rsaFile, comment); err != nil {
			return nil, err
		}
	}
	if rsaFile == "" || quick == 0 {
		return nil, reread()
	}
	if err := errors.Join(os.Remove(rsaFile), removeIfThere(rsaFile+".pub"), reread()); err != nil {
		return nil, err
	}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good, so that the thread ends with its priority
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, lowestPriority)
		err := renewSSHKey(rsaFile, comment)
		if err == nil {
			err = reread()
		}
		made <- err
	}()
	return made, nil
}

// lowestPriority is the nice value of what must not be in anybody's way.
const lowestPriority = 19

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// renewSSHKey makes one host key anew.
func renewSSHKey(file, comment string) error {
	kind := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "ssh_host_"), "_key")
	private, public, err := newSSHKey(kind, comment)
	if err != nil {
		return err
	}
	return errors.Join(rewrite(file, private, 0o600), rewrite(file+".pub", public, 0o644))
}

// rereadSSHKeys tells a running SSH server to read its configuration again. It
// writes its pid file when it is ready to be told.
func rereadSSHKeys() error {
	data, err := os.ReadFile(sshServer)
	if err != nil {
		return nil // it does not run
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid < 2 {
		return nil
	}
	// The file may have outlived its process, whose number is another's.
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || strings.TrimSpace(string(name)) != "sshd" {
		return nil
	}
	return unix.Kill(pid, unix.SIGHUP)
}

// newSSHKey makes a key of a kind and returns what ssh-keygen would write to the
// two files of it.
func newSSHKey(kind, comment string) (private, public string, err error) {
	var name string
	var pub, priv sshBytes // what follows the name, in a public key and a private one
	switch kind {
	case "ed25519":
		p, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return "", "", err
		}
		name = "ssh-ed25519"
		pub.text(string(p))
		priv.text(string(p))
		priv.text(string(k))
	case "ecdsa":
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return "", "", err
		}
		point, err := k.PublicKey.Bytes()
		if err != nil {
			return "", "", err
		}
		secret, err := k.Bytes()
		if err != nil {
			return "", "", err
		}
		name = "ecdsa-sha2-nistp256"
		pub.text("nistp256")
		pub.text(string(point))
		priv = append(priv, pub...)
		priv.number(new(big.Int).SetBytes(secret))
	case "rsa":
		k, err := rsa.GenerateKey(rand.Reader, rsaBits)
		if err != nil {
			return "", "", err
		}
		name = "ssh-rsa"
		e := big.NewInt(int64(k.E))
		pub.number(e)
		pub.number(k.N)
		for _, n := range []*big.Int{k.N, e, k.D, k.Precomputed.Qinv, k.Primes[0], k.Primes[1]} {
			priv.number(n)
		}
	default:
		return "", "", fmt.Errorf("there are no SSH keys of the kind %s", kind)
	}
	var blob sshBytes
	blob.text(name)
	blob = append(blob, pub...)
	public = name + " " + base64.StdEncoding.EncodeToString(blob) + " " + comment + "\n"
	return sshPrivate(name, blob, priv, comment), public, nil
}

// sshPrivate is OpenSSH's file of a private key without a passphrase.
func sshPrivate(name string, public, secret sshBytes, comment string) string {
	var check [4]byte
	_, _ = rand.Read(check[:]) // never fails
	var inner sshBytes         // would be encrypted
	inner = append(inner, check[:]...)
	inner = append(inner, check[:]...)
	inner.text(name)
	inner = append(inner, secret...)
	inner.text(comment)
	for pad := byte(1); len(inner)%8 != 0; pad++ {
		inner = append(inner, pad)
	}
	file := sshBytes("openssh-key-v1\x00")
	file.text("none") // cipher
	file.text("none") // derivation of its key
	file.text("")     // options of that
	file = binary.BigEndian.AppendUint32(file, 1)
	file.text(string(public))
	file.text(string(inner))
	return string(pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: file}))
}

// sshBytes appends values as SSH's messages have them.
type sshBytes []byte

func (b *sshBytes) text(s string) {
	*b = binary.BigEndian.AppendUint32(*b, uint32(len(s)))
	*b = append(*b, s...)
}

// number appends a number that is not negative.
func (b *sshBytes) number(n *big.Int) {
	p := n.Bytes()
	if len(p) > 0 && p[0] >= 0x80 {
		p = append([]byte{0}, p...)
	}
	b.text(string(p))
}
