package process

import (
	"encoding/binary"
	"errors"
	"testing"
)

// builtPsinfo writes psinfo_t field by field, each aligned as the C compiler of
// a 64-bit x86 aligns it.
func builtPsinfo(threads, pid int32, sec, nsec int64) []byte {
	var b []byte
	i32 := func(v int32) { b = binary.LittleEndian.AppendUint32(b, uint32(v)) }
	i64 := func(v int64) { b = binary.LittleEndian.AppendUint64(b, uint64(v)) }
	for _, v := range []int32{0x7eadbeef, threads, pid, 1, pid, pid, 0, 0, 0, 0} {
		i32(v) // flag, nlwp, pid, ppid, pgid, sid, uid, euid, gid, egid
	}
	for _, v := range []int64{-1, 4096, 2048, 1024, -1} {
		i64(v) // addr, size, rssize, rssizepriv, ttydev
	}
	i32(0x1234_5678) // pctcpu and pctmem
	i32(0)           // up to the next multiple of 8
	for _, v := range []int64{sec, nsec, 5, 6, 7, 8} {
		i64(v) // start, time, ctime
	}
	b = append(b, make([]byte, 16+80)...) // fname, psargs
	for range 4 {
		i64(0)
	}
	return b
}

func TestPsinfoOfAProcess(t *testing.T) {
	got, err := parsePsinfo(builtPsinfo(12, 4711, 1_760_000_000, 123_456_789))
	want := psinfo{pid: 4711, threads: 12, start: 1_760_000_000_123_456_789}
	if err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

func TestPsinfoOfAZombieHasNoThreads(t *testing.T) {
	got, err := parsePsinfo(builtPsinfo(0, 4711, 1, 0))
	if err != nil || got.threads != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestPsinfoThatIsNotOneIsRefused(t *testing.T) {
	for name, data := range map[string][]byte{
		"empty":                nil,
		"cut off":              builtPsinfo(1, 1, 1, 1)[:103],
		"of a 32-bit program":  builtPsinfo(1, 1, -1<<40, 1),
		"impossible fractions": builtPsinfo(1, 1, 1, 1e9),
	} {
		if got, err := parsePsinfo(data); !errors.Is(err, errPsinfo) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}
