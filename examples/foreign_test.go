//go:build linux

package examples_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestForeignDisks imports a disk that other people's tools have made, with
// GRUB for BIOS and UEFI, and works with nodes of it, which firmware boots.
func TestForeignDisks(t *testing.T) {
	newSite(t) // skips before the disk is made
	disk := makeForeignDisk(t)
	for boot, memory := range map[string]string{"bios": "128", "uefi": "512"} { // in less, GRUB for UEFI runs out of memory
		t.Run(boot, func(t *testing.T) {
			s := newSite(t)
			image := "foreign-" + boot
			s.importImage(disk, image, "--boot", boot, "--login", "login:", "--user", "root", "--password", "sekrit")
			l := s.lab(boot, "any", "--image", image, "--node", "a:"+memory, "--node", "b:"+memory, "--link", "a:b")
			l.launch()
			if out := l.run("exec", "a", "exit 7"); out.status != 7 {
				t.Errorf("exec of exit 7: %s", out)
			}
			for _, name := range []string{"a", "b"} {
				if got := l.sh(name, "hostname; cat /etc/issue; ls -d /sys/firmware/efi 2>&-; true"); got != guestReport(name, boot) {
					t.Errorf("%s reports %q", name, got)
				}
			}
			l.addresses("a", "b", 1)
			l.pings("a", "10.9.1.2")
			l.pings("b", "10.9.1.1")
			if boot == "bios" {
				testFileOutlivesForce(t, l)
			}
			l.destroy()
		})
	}
	t.Run("blind", func(t *testing.T) { // nothing is said of its console
		s := newSite(t)
		s.importImage(disk, "blind")
		l := s.lab("blind", "any", "--image", "blind", "--node", "a")
		l.launch()
		l.refuse([]string{"exec", "a", "true"}, "blind", "no login", "serial")
		l.destroy()
	})
}

// guestReport is what a guest has to say of itself.
func guestReport(name, boot string) string {
	report := name + "\nforeign\n"
	if boot == "uefi" {
		report += "/sys/firmware/efi\n"
	}
	return report
}

// testFileOutlivesForce stops a guest that does not know its power button.
func testFileOutlivesForce(t *testing.T, l *lab) {
	l.sh("a", "echo kept > /data/kept")
	if out := l.run("hyperstop", "a"); out.status != 0 || !strings.Contains(out.stderr, "by force") {
		t.Errorf("hyperstop of a guest without power button: %s", out)
	}
	l.must("hyperstart", "a")
	if got := l.sh("a", "cat /data/kept"); got != "kept\n" {
		t.Errorf("the file is %q", got)
	}
}

// importImage imports a disk; it may be read by the test's site alone.
func (s *site) importImage(disk, name string, flags ...string) {
	s.t.Helper()
	if out := s.falcon(append([]string{"image", "import", disk, name}, flags...)...); out.status != 0 {
		s.t.Fatalf("importing: %s", out)
	}
}

// Where things are on the foreign disk, in MiB, and how large it is.
const (
	espStart, espSize   = 2, 8
	rootStart, rootSize = 10, 40
	foreignSize         = 52
)

// grubModules are what GRUB needs to find its files and a kernel.
var grubModules = strings.Fields("part_gpt ext2 fat normal linux serial terminal configfile search search_label")

// grubConfig has a menu that waits: pressing Enter is enough, as long as no
// other key has moved the choice away from the first entry.
const grubConfig = `serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
set timeout=-1
search --no-floppy --label foreign --set=root
menuentry "Foreign" {
	linux /boot/vmlinuz console=ttyS0,115200 quiet mitigations=off
	initrd /boot/initrd
}
menuentry "Another one" {
	halt
}
`

// foreignInit is the first process: the guest's system is in its memory, and
// the disk is for data.
const foreignInit = `#!/bin/busybox sh
export PATH=/bin HOME=/root
mount -t proc proc /proc
/bin/busybox --install -s /bin
hostname foreign
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk failover net_failover virtio_net; do
	[ -e /modules/$m.ko ] && insmod /modules/$m.ko
done
mount -t ext4 /dev/vda3 /data
ln -sf /proc/self/mounts /etc/mtab
while :; do setsid getty -L 115200 ttyS0 vt100; done
`

// The password is "sekrit".
const foreignPasswd = "root:$6$foreign$WyLNIiZla3VrtsQvScMIQl4ilKRiUS6qzoKFY.Fg1KH5fypsVhALchxKXkqlrJTDN1DrElKDZ2SIyXlBxTXth/:0:0:root:/:/bin/sh\n"

// makeForeignDisk makes a GPT disk which both kinds of firmware boot.
func makeForeignDisk(t *testing.T) string {
	t.Helper()
	m := &foreignDisk{t: t, dir: t.TempDir()}
	check(t, os.MkdirAll(m.path("root/boot/grub"), 0o755))
	check(t, os.WriteFile(m.path("root/boot/grub/grub.cfg"), []byte(grubConfig), 0o644))
	m.kernel()
	m.tool("mke2fs", "-q", "-t", "ext4", "-L", "foreign", "-d", "root", "root.ext4", fmt.Sprintf("%dM", rootSize))
	m.tool("grub-mkimage", append([]string{"-O", "i386-pc", "-p", "(hd0,gpt3)/boot/grub", "-o", "core.img", "biosdisk"}, grubModules...)...)
	m.tool("grub-mkimage", append([]string{"-O", "x86_64-efi", "-p", "(hd0,gpt3)/boot/grub", "-o", "grub.efi"}, grubModules...)...)
	check(t, os.WriteFile(m.path("esp.fat"), nil, 0o600))
	check(t, os.Truncate(m.path("esp.fat"), espSize<<20))
	m.tool("mkfs.vfat", "esp.fat")
	m.tool("mmd", "-i", "esp.fat", "::/EFI", "::/EFI/BOOT")
	m.tool("mcopy", "-i", "esp.fat", "grub.efi", "::/EFI/BOOT/BOOTX64.EFI")
	m.assemble()
	return m.path("disk.raw")
}

type foreignDisk struct {
	t   *testing.T
	dir string
}

func (m *foreignDisk) path(name string) string { return filepath.Join(m.dir, name) }

func (m *foreignDisk) read(name string) []byte {
	m.t.Helper()
	data, err := os.ReadFile(m.path(name))
	check(m.t, err)
	return data
}

// tool runs a program in the folder of the parts.
func (m *foreignDisk) tool(name string, args ...string) string {
	m.t.Helper()
	return m.feed("", name, args...)
}

func (m *foreignDisk) feed(stdin, name string, args ...string) string {
	m.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdin = m.dir, strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Fatalf("%v: %v (scripts/setup test installs what is missing)\n%s", cmd, err, out)
	}
	return string(out)
}

// kernel gets Debian's kernel for clouds, which is small, and makes an
// initramfs: that of micro, for its busybox, with an archive of ours after it.
func (m *foreignDisk) kernel() {
	m.t.Helper()
	pkg := regexp.MustCompile(`Depends: (linux-image-\S+)`).FindStringSubmatch(m.tool("apt-cache", "depends", "linux-image-cloud-amd64"))
	if pkg == nil {
		m.t.Fatal("apt knows no kernel for package linux-image-cloud-amd64")
	}
	m.tool("apt-get", "-q", "download", pkg[1])
	m.tool("sh", "-c", "dpkg-deb --fsys-tarfile linux-image-*.deb | tar -x --wildcards './boot/vmlinuz-*' '*/virtio*.ko' '*/*failover.ko'")
	m.tool("sh", "-c", "mv boot/vmlinuz-* root/boot/vmlinuz && mkdir -p init/data init/sys init/etc init/modules && find lib -name '*.ko' -exec mv {} init/modules/ ';'")
	check(m.t, os.WriteFile(m.path("init/init"), []byte(foreignInit), 0o755))
	for name, content := range map[string]string{"passwd": foreignPasswd, "group": "root:x:0:\n", "hostname": "foreign\n", "issue": "foreign\n"} {
		check(m.t, os.WriteFile(m.path("init/etc/"+name), []byte(content), 0o644))
	}
	m.tool("sh", "-c", "cd init && find . | cpio --quiet -o -H newc -R 0:0 >../init.cpio")
	base, err := os.ReadFile(filepath.Join(built.image, "initrd.img"))
	check(m.t, err)
	base = append(base, make([]byte, -len(base)&3)...)
	check(m.t, os.WriteFile(m.path("root/boot/initrd"), append(base, m.read("init.cpio")...), 0o644))
}

// assemble writes partitions and boot code into the disk. What it patches is
// what grub-install would: where the next sector of the boot code is.
func (m *foreignDisk) assemble() {
	m.t.Helper()
	const sector = 512
	const coreAt = 2048 // the BIOS boot partition's first sector
	out, err := os.Create(m.path("disk.raw"))
	check(m.t, err)
	defer out.Close()
	check(m.t, out.Truncate(foreignSize<<20))
	m.feed(fmt.Sprintf("start=%d,size=2048,type=21686148-6449-6E6F-744E-656564454649\nstart=%dMiB,size=%dMiB,type=U\nstart=%dMiB,size=%dMiB,type=L\n",
		coreAt, espStart, espSize, rootStart, rootSize), "sfdisk", "-q", "--label", "gpt", "disk.raw")
	boot, err := os.ReadFile("/usr/lib/grub/i386-pc/boot.img")
	check(m.t, err)
	binary.LittleEndian.PutUint64(boot[0x5c:], coreAt)
	core := m.read("core.img")
	binary.LittleEndian.PutUint64(core[sector-12:], coreAt+1)
	for _, part := range []struct {
		at   int64
		data []byte
	}{{0, boot[:440]}, {coreAt * sector, core}, {espStart << 20, m.read("esp.fat")}, {rootStart << 20, m.read("root.ext4")}} {
		_, err := out.WriteAt(part.data, part.at)
		check(m.t, err)
	}
}
