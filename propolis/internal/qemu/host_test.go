package qemu

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestChooseAccel(t *testing.T) {
	denied := errors.New("open /dev/kvm: permission denied")
	tests := map[string]struct {
		requested   string
		virtualizes bool
		open        error
		accel, why  string
		err         string
	}{
		"auto with everything":            {requested: "auto", virtualizes: true, accel: AccelKVM, why: "virtualises"},
		"empty is auto":                   {requested: "", virtualizes: true, accel: AccelKVM, why: "virtualises"},
		"auto, device without processor":  {requested: "auto", accel: AccelTCG, why: "neither vmx nor svm"},
		"auto, processor without device":  {requested: "auto", virtualizes: true, open: denied, accel: AccelTCG, why: "permission denied"},
		"tcg where kvm would do":          {requested: "tcg", virtualizes: true, accel: AccelTCG, why: "asked for"},
		"kvm":                             {requested: "kvm", virtualizes: true, accel: AccelKVM, why: "asked for"},
		"kvm against the processor flags": {requested: "kvm", accel: AccelKVM, why: "although"},
		"kvm without device":              {requested: "kvm", virtualizes: true, open: denied, err: "permission denied"},
		"unknown":                         {requested: "hvf", err: `"hvf"`},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			accel, why, err := chooseAccel(tc.requested, "asked for",
				func() bool { return tc.virtualizes }, func() error { return tc.open })
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("err = %v", err)
				}
				return
			}
			if err != nil || accel != tc.accel || !strings.Contains(why, tc.why) {
				t.Errorf("%s because %q, %v", accel, why, err)
			}
		})
	}
}

func TestARequestOutranksTheEnvironment(t *testing.T) {
	t.Setenv(AccelEnv, "nonsense")
	if accel, _, err := Acceleration(AccelTCG); accel != AccelTCG || err != nil {
		t.Errorf("%s, %v", accel, err)
	}
	if _, _, err := Acceleration(""); err == nil || !strings.Contains(err.Error(), AccelEnv) {
		t.Errorf("err = %v, want it to name %s", err, AccelEnv)
	}
}

func TestHasVirtualization(t *testing.T) {
	for info, want := range map[string]bool{
		"processor\t: 0\nflags\t\t: fpu vmx sse\n":            true,
		"flags : fpu svm\n":                                   true,
		"flags : fpu svm_lock\nbugs : vmx\nvmx flags : vmx\n": false,
		"": false,
	} {
		if hasVirtualization(info) != want {
			t.Errorf("%q: want %v", info, want)
		}
	}
}

func TestFirmwareImagesAreToldApart(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, size int, volume bool) string {
		data := make([]byte, size)
		if volume {
			copy(data[40:], "_FVH")
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bios := write("bios.bin", 128<<10, false)
	code := write("OVMF_CODE.fd", 2<<20, true)
	vars := write("OVMF_VARS.fd", 64<<10, true)
	alone := write("alone.fd", 256<<10, true)
	for path, want := range map[string]Firmware{
		bios:         {BIOS: bios},
		code:         {Code: code, varsTemplate: vars},
		alone:        {Code: alone},
		FirmwareBIOS: {}, FirmwareKernel: {},
	} {
		if got, err := findFirmware(path); got != want || err != nil {
			t.Errorf("%s: %+v, %v", path, got, err)
		}
	}
	for _, path := range []string{
		"", filepath.Join(dir, "none"), dir, write("text", 100, false), write("empty", 0, false),
		write("big.bin", 512<<10, false), write("odd.fd", 2<<20+1, true), write("huge.fd", 16<<20, true),
	} {
		if got, err := findFirmware(path); err == nil {
			t.Errorf("%q was taken for %+v", path, got)
		}
	}
}

func TestUEFIVariablesSurviveUnlessTheirSizeIsWrong(t *testing.T) {
	dir := t.TempDir()
	template := filepath.Join(dir, "VARS.fd")
	if err := os.WriteFile(template, []byte("factory"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{PIDFile: filepath.Join(dir, "violin.qemu.pid")}
	vars := filepath.Join(dir, "violin.qemu.vars")
	for _, step := range []struct{ before, after string }{
		{"", "factory"}, {"changed", "changed"}, {"cut", "factory"},
	} {
		if step.before != "" {
			if err := os.WriteFile(vars, []byte(step.before), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		fw := Firmware{varsTemplate: template}
		undo, err := placeVars(cfg, &fw)
		if err != nil || fw.Vars != vars {
			t.Fatalf("%+v, %v", fw, err)
		}
		undo()
		if got, _ := os.ReadFile(vars); string(got) != step.after {
			t.Errorf("from %q: %q, want %q", step.before, got, step.after)
		}
	}
	fw := Firmware{varsTemplate: template}
	undo, err := placeVars(Config{}, &fw)
	if err != nil || !exists(fw.Vars) {
		t.Fatalf("without a pid file: %+v, %v", fw, err)
	}
	if undo(); exists(filepath.Dir(fw.Vars)) {
		t.Errorf("%s was left behind", fw.Vars)
	}
}

func TestInstallHintUsesThePackageManagerThatIsThere(t *testing.T) {
	packages := map[string]string{"apt-get": "qemu-a", "dnf": "qemu-d"}
	only := func(name string) func(string) (string, error) {
		return func(asked string) (string, error) {
			if asked == name {
				return name, nil
			}
			return "", exec.ErrNotFound
		}
	}
	for manager, want := range map[string]string{
		"apt-get": "run: apt-get install qemu-a", "dnf": "run: dnf install qemu-d", "none": "install the package qemu-a",
	} {
		if got := installHint(only(manager), packages); got != want {
			t.Errorf("%s: %q, want %q", manager, got, want)
		}
	}
}

func TestVersionOfWhatIsNotQEMU(t *testing.T) {
	if _, err := Version(t.Context(), "/bin/echo"); err == nil || !strings.Contains(err.Error(), "no answer of QEMU's") {
		t.Errorf("err = %v", err)
	}
}

func TestVersionOfQEMU(t *testing.T) {
	needQEMU(t)
	path, err := Find("")
	if err != nil {
		t.Fatal(err)
	}
	version, err := Version(t.Context(), path)
	if err != nil || version == "" || version[0] < '5' || version[0] > '9' && len(version) < 2 {
		t.Errorf("version %q, %v", version, err)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var l tail
	for range 100 {
		if _, err := l.Write([]byte(strings.Repeat("x", 999) + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Write([]byte("the end\n")); err != nil {
		t.Fatal(err)
	}
	if got := l.String(); len(got) > tailSize || !strings.HasSuffix(got, "x\nthe end") {
		t.Errorf("%d bytes, ending in %q", len(got), got[len(got)-10:])
	}
}
