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
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// sshFolder is where an SSH server has its host keys.
const sshFolder = "/etc/ssh"

// sshServers are where a running SSH server notes its process.
var sshServers = []string{"/run/sshd.pid", "/var/run/sshd.pid"}

// rsaBits is the size of the RSA keys that ssh-keygen makes.
const rsaBits = 3072

// renewSSHKeys makes each of the SSH server's host keys anew and has the server
// read them. It does so without ssh-keygen, which takes a translated guest much
// longer to start than to make a key. What it has no way to make it removes: all
// clones would share it.
func renewSSHKeys(dir, hostname string) error {
	files, err := filepath.Glob(filepath.Join(dir, "ssh_host_*_key*"))
	if err != nil || len(files) == 0 {
		return err
	}
	if hostname == "" {
		if hostname, err = os.Hostname(); err != nil {
			return err
		}
	}
	for _, file := range files {
		kind, ok := strings.CutSuffix(strings.TrimPrefix(filepath.Base(file), "ssh_host_"), "_key")
		if !ok {
			continue // beside a private key
		}
		if err := renewSSHKey(file, kind, "root@"+hostname); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	for _, file := range files { // certificates of the old ones
		if strings.HasSuffix(file, "-cert.pub") {
			if err := os.Remove(file); err != nil {
				return err
			}
		}
	}
	for _, path := range sshServers {
		if done, err := rereadKeys(path); done || err != nil {
			return err
		}
	}
	return nil
}

// renewSSHKey makes one host key anew.
func renewSSHKey(file, kind, comment string) error {
	private, public, err := newSSHKey(kind, comment)
	switch {
	case err != nil:
		return err
	case private == "":
		for _, path := range []string{file, file + ".pub"} {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	}
	return errors.Join(rewrite(file, private, 0o600), rewrite(file+".pub", public, 0o644))
}

// rereadKeys tells the SSH server of a pid file to read its configuration again.
// It writes that file when it is ready to be told.
func rereadKeys(path string) (done bool, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return false, nil // it does not run
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid < 2 {
		return false, nil
	}
	// The file may have outlived its process, whose number is another's.
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || strings.TrimSpace(string(name)) != "sshd" {
		return false, nil
	}
	return true, unix.Kill(pid, unix.SIGHUP)
}

// newSSHKey makes a key of a kind and returns what ssh-keygen would write to the
// two files of it. Both are empty for a kind that is not known.
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
		return "", "", nil
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
