package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// What runs a guest's code.
const (
	AccelAuto = "auto" // whichever of the others is best here
	AccelKVM  = "kvm"  // the processor's virtualisation
	AccelTCG  = "tcg"  // translation by QEMU
)

// AccelEnv is the environment variable that decides where nothing else does.
const AccelEnv = "FALCON_ACCEL"

// Acceleration decides what runs guests here and says why. requested is
// "auto", "kvm" or "tcg"; empty asks the environment's FALCON_ACCEL and then
// means auto.
func Acceleration(requested string) (accel, why string, err error) {
	from := "asked for"
	if requested == "" {
		requested, from = os.Getenv(AccelEnv), AccelEnv+" says so"
	}
	return chooseAccel(requested, from, processorVirtualizes, openKVM)
}

// chooseAccel decides. KVM by itself needs a processor that virtualises and a
// /dev/kvm that opens: there are hosts with the device alone (the kvm_pvm
// module), where ordinary kernels crawl and then die.
func chooseAccel(requested, from string, virtualizes func() bool, open func() error) (accel, why string, err error) {
	switch requested {
	case AccelTCG:
		return AccelTCG, from, nil
	case AccelKVM:
		if err := open(); err != nil {
			return "", "", fmt.Errorf("acceleration kvm (%s): %w; load the kvm module and join the group kvm, or use tcg", from, err)
		}
		if !virtualizes() {
			from += ", although the processor shows neither vmx nor svm"
		}
		return AccelKVM, from, nil
	case AccelAuto, "":
	default:
		return "", "", fmt.Errorf("acceleration %q (%s) is unknown; use auto, kvm or tcg", requested, from)
	}
	if !virtualizes() {
		return AccelTCG, "the processor shows neither vmx nor svm", nil
	}
	if err := open(); err != nil {
		return AccelTCG, err.Error(), nil
	}
	return AccelKVM, "the processor virtualises and /dev/kvm opens", nil
}

// processorVirtualizes looks for vmx (Intel) or svm (AMD) among the flags.
func processorVirtualizes() bool {
	info, err := os.ReadFile("/proc/cpuinfo")
	return err == nil && hasVirtualization(string(info))
}

func hasVirtualization(cpuinfo string) bool {
	for line := range strings.Lines(cpuinfo) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) != "flags" {
			continue
		}
		flags := strings.Fields(value)
		return slices.Contains(flags, "vmx") || slices.Contains(flags, "svm")
	}
	return false
}

func openKVM() error { return opens("/dev/kvm") }

// opens says why a device cannot be opened for reading and writing.
func opens(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// vsockDevice is what QEMU serves a vsock by.
const vsockDevice = "/dev/vhost-vsock"

// Vsock says why this host has no vsock for guests, nil if it has.
func Vsock() error {
	if err := opens(vsockDevice); err != nil {
		return fmt.Errorf("%w; load the module vhost_vsock", err)
	}
	return nil
}

// Find returns the path of QEMU: requested if given, else the host's.
func Find(requested string) (string, error) {
	if requested != "" {
		path, err := exec.LookPath(requested)
		if err != nil {
			return "", fmt.Errorf("QEMU: %w", err)
		}
		return path, nil
	}
	for _, name := range []string{"qemu-system-x86_64", "/usr/libexec/qemu-kvm"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("qemu-system-x86_64 is not installed; %s", installHint(exec.LookPath, map[string]string{
		"apt-get": "qemu-system-x86", "dnf": "qemu-system-x86-core", "zypper": "qemu-x86",
		"pacman": "qemu-system-x86", "apk": "qemu-system-x86_64",
	}))
}

// Version returns the version that a QEMU binary prints, such as "7.2.22".
func Version(ctx context.Context, qemu string) (string, error) {
	out, err := exec.CommandContext(ctx, qemu, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("asking %s for its version: %w", qemu, err)
	}
	const before = "QEMU emulator version "
	_, version, ok := strings.Cut(string(out), before)
	if fields := strings.Fields(version); ok && len(fields) > 0 {
		return fields[0], nil
	}
	return "", fmt.Errorf("asking %s for its version: %q is no answer of QEMU's", qemu, firstLine(out))
}

func firstLine(text []byte) string {
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

// uefiImages are where distributions put OVMF: code, and variables to copy.
// None has Secure Boot's SMM code, which needs another machine type.
func uefiImages() [][2]string {
	return [][2]string{
		{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},             // Debian, Ubuntu
		{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},                   // older ones
		{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},         // Fedora, RHEL
		{"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},     // Arch
		{"/usr/share/edk2-ovmf/x64/OVMF_CODE.fd", "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd"}, // older Arch
		{"/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"},   // openSUSE
		{"/usr/share/qemu/edk2-x86_64-code.fd", "/usr/share/qemu/edk2-i386-vars.fd"},       // QEMU's own
		{"/usr/local/share/qemu/edk2-x86_64-code.fd", "/usr/local/share/qemu/edk2-i386-vars.fd"},
	}
}

// FindUEFI returns the host's OVMF.
func FindUEFI() (Firmware, error) {
	for _, image := range uefiImages() {
		if exists(image[0]) && exists(image[1]) {
			return Firmware{Code: image[0], varsTemplate: image[1]}, nil
		}
	}
	return Firmware{}, fmt.Errorf("no UEFI firmware (OVMF) is installed; %s", installHint(exec.LookPath, map[string]string{
		"apt-get": "ovmf", "dnf": "edk2-ovmf", "zypper": "qemu-ovmf-x86_64", "pacman": "edk2-ovmf", "apk": "ovmf",
	}))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// installHint says how to install a package, named for each package manager.
func installHint(look func(string) (string, error), packages map[string]string) string {
	commands := []struct{ manager, verb string }{
		{"apt-get", "install"}, {"dnf", "install"}, {"zypper", "install"}, {"pacman", "-S"}, {"apk", "add"},
	}
	for _, c := range commands {
		if _, err := look(c.manager); err == nil {
			return fmt.Sprintf("run: %s %s %s", c.manager, c.verb, packages[c.manager])
		}
	}
	return "install the package " + packages["apt-get"]
}

// findFirmware resolves Config.Firmware.
func findFirmware(firmware string) (Firmware, error) {
	switch firmware {
	case FirmwareBIOS, FirmwareKernel:
		return Firmware{}, nil
	case FirmwareUEFI:
		return FindUEFI()
	case "":
		return Firmware{}, errors.New("no firmware given; use bios, uefi, kernel or the path of an image")
	}
	return identifyFirmware(firmware)
}

// Sizes that tell firmware images apart, in bytes.
const (
	biosUnit    = 64 << 10 // a BIOS image is a multiple of this
	maxBIOSSize = 256 << 10
	flashUnit   = 4 << 10 // a flash image is a multiple of this
	maxFlash    = 8 << 20 // QEMU's limit for flash of the pc machine
)

// identifyFirmware tells a UEFI image from a BIOS image: the former starts
// with a firmware volume, whose header has a signature at offset 40 (UEFI
// Platform Initialization specification, volume 3).
func identifyFirmware(path string) (Firmware, error) {
	f, err := os.Open(path)
	if err != nil {
		return Firmware{}, fmt.Errorf("firmware: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Firmware{}, fmt.Errorf("firmware: %w", err)
	}
	signature := make([]byte, 4)
	if _, err := f.ReadAt(signature, 40); err != nil && !errors.Is(err, io.EOF) {
		return Firmware{}, fmt.Errorf("firmware: %w", err)
	}
	size := info.Size()
	switch {
	case string(signature) == "_FVH" && size%flashUnit == 0 && size <= maxFlash:
		return Firmware{Code: path, varsTemplate: siblingVars(path)}, nil
	case string(signature) != "_FVH" && size > 0 && size%biosUnit == 0 && size <= maxBIOSSize:
		return Firmware{BIOS: path}, nil
	}
	return Firmware{}, fmt.Errorf("firmware %s: %d bytes of neither UEFI (starts with a firmware volume) nor BIOS (64 to 256 KiB)", path, size)
}

// siblingVars finds the variables that belong to an OVMF_CODE image, or empty.
// OVMF boots without, and then forgets its variables at every reset.
func siblingVars(code string) string {
	dir, name := filepath.Split(code)
	for _, words := range [][2]string{{"CODE", "VARS"}, {"code", "vars"}} {
		if vars := strings.Replace(name, words[0], words[1], 1); vars != name && exists(dir+vars) {
			return dir + vars
		}
	}
	return ""
}

// placeVars copies UEFI's variables for one instance and sets fw.Vars. A copy
// beside Config.PIDFile is kept and used again; any other is removed by undo.
func placeVars(cfg Config, fw *Firmware) (undo func(), err error) {
	undo = func() {}
	if fw.varsTemplate == "" {
		return undo, nil
	}
	template, err := os.ReadFile(fw.varsTemplate)
	if err != nil {
		return undo, fmt.Errorf("UEFI variables: %w", err)
	}
	if cfg.PIDFile == "" {
		dir, err := os.MkdirTemp("", "falcon-uefi-")
		if err != nil {
			return undo, fmt.Errorf("UEFI variables: %w", err)
		}
		undo = func() { os.RemoveAll(dir) }
		fw.Vars = filepath.Join(dir, "vars")
	} else {
		fw.Vars = strings.TrimSuffix(cfg.PIDFile, filepath.Ext(cfg.PIDFile)) + ".vars"
	}
	if info, err := os.Stat(fw.Vars); err == nil && info.Size() == int64(len(template)) {
		return undo, nil
	}
	if err := writeFile(fw.Vars, template); err != nil {
		undo()
		return func() {}, fmt.Errorf("UEFI variables: %w", err)
	}
	return undo, nil
}

// writeFile replaces a file by data as a whole, readable by its owner only.
func writeFile(path string, data []byte) error {
	tmp := path + ".tmp"
	if err := writeNew(tmp, data); err != nil {
		os.Remove(tmp)
		return err
	}
	return os.Rename(tmp, path)
}

// writeNew writes a file in the place of whatever has its name: what was put
// there as a link leads nowhere.
func writeNew(path string, data []byte) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}

// statFile looks at a path of the spec.
func statFile(path string) File {
	info, err := os.Stat(path)
	if err != nil {
		return File{Err: err}
	}
	return File{Dir: info.IsDir(), Block: isBlock(info), info: info}
}

func isBlock(info fs.FileInfo) bool {
	return info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice
}
