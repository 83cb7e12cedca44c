package server

import (
	"strings"
	"testing"

	"github.com/falcon-vm/falcon-go/propolis/internal/qemu"
)

func TestHostInfoSaysWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv(qemu.AccelEnv, "warp")
	host, err := HostInfo(t.Context())
	if err == nil || host.QEMUVersion != "" || host.Accel != "" {
		t.Fatalf("host %+v, err %v", host, err)
	}
	for _, want := range []string{"qemu-system-x86", `acceleration "warp"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("err = %v, want %q in it", err, want)
		}
	}
}

func TestHostInfoHeedsTheEnvironment(t *testing.T) {
	t.Setenv(qemu.AccelEnv, qemu.AccelTCG)
	host, _ := HostInfo(t.Context())
	if host.Accel != qemu.AccelTCG || host.AccelReason == "" {
		t.Errorf("host %+v", host)
	}
	if (host.QEMU == "") != (host.QEMUVersion == "") || host.Vsock != (host.NoVsock == nil) {
		t.Errorf("host %+v contradicts itself", host)
	}
}
