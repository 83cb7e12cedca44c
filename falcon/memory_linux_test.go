package falcon

import (
	"errors"
	"os"
	"testing"
)

func TestKernelSizesAreReadByTheirWholeNames(t *testing.T) {
	const rollup = `55d0c0000000-7ffd0000 ---p 00000000 00:00 0 [rollup]
Rss:               14629 kB
Pss:                2775 kB
Pss_Dirty:          2537 kB
`
	for name, want := range map[string]Bytes{"Pss": 2775 << 10, "Rss": 14629 << 10, "Pss_Dirty": 2537 << 10} {
		if got, err := kernelSize([]byte(rollup), name); got != want || err != nil {
			t.Errorf("%s is %d (%v), want %d", name, got, err, want)
		}
	}
	for _, bad := range []string{"", "Pss: kB\n", "Pss: 12\n", "Pss: -1 kB\n", "Pss: 99999999999999999999 kB\n", "SwapPss: 1 kB\n"} {
		if got, err := kernelSize([]byte(bad), "Pss"); err == nil {
			t.Errorf("%q was read as %d", bad, got)
		}
	}
}

func TestMemoryOfAProcessIsItsShare(t *testing.T) {
	h := &linuxHost{}
	before, err := h.pss(os.Getpid())
	if err != nil || before == 0 {
		t.Fatalf("this process takes %d (%v)", before, err)
	}
	ballast := make([]byte, 64<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	after, err := h.pss(os.Getpid())
	if err != nil || after < before+48<<20 {
		t.Errorf("with 64 MiB more it takes %s, before %s (%v)", after, before, err)
	}
	if ballast[0] == 0 { // and so it is alive until here
		t.Fatal("the memory is gone")
	}
	if _, err := h.pss(0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no process: %v", err)
	}
}
