package main

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestByHandIsTheLastCommandLineOfTheLog(t *testing.T) {
	log := `{"msg":"listening"}
{"msg":"starting QEMU","by_hand":"qemu -name one"}
not JSON
{"msg":"starting QEMU","by_hand":"qemu -name 'two words'"}
{"msg":"request completed"}`
	line, err := byHand([]byte(log))
	if err != nil || line != "qemu -name 'two words'" {
		t.Errorf("%q, %v", line, err)
	}
	if line, err := byHand([]byte(`{"msg":"listening"}`)); err == nil {
		t.Errorf("without one: %q", line)
	}
}

func TestAwaitPrompt(t *testing.T) {
	booted := "SeaBIOS\r\n[    0.1] booting\r\n\x1b[m[micro violin ~]# "
	for name, in := range map[string]io.Reader{
		"at once":       strings.NewReader(booted),
		"byte for byte": iotest.OneByteReader(strings.NewReader(booted)),
	} {
		if err := awaitPrompt(in); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := awaitPrompt(strings.NewReader("[micro violin ~]# echo\r\nKernel panic\r\n")); err == nil {
		t.Error("a prompt that is not last was taken for one")
	}
}

func TestMedianAndSpread(t *testing.T) {
	odd := []time.Duration{3 * time.Second, time.Second, 2 * time.Second}
	if m := median(odd); m != 2*time.Second {
		t.Errorf("median of three: %v", m)
	}
	if m := median(odd[:2]); m != 2*time.Second {
		t.Errorf("median of two: %v", m)
	}
	if r := ratio(odd, []time.Duration{2 * time.Second, 2 * time.Second, time.Second}); r != 1.5 {
		t.Errorf("ratio: %v", r)
	}
	if s := spread(odd); s != "2.00 s (1.00 to 3.00)" {
		t.Errorf("spread: %s", s)
	}
}
