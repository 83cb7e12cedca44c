//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestStartOfIsTheLastStartOfTheLog(t *testing.T) {
	log := `{"msg":"listening"}
{"msg":"starting QEMU","by_hand":"/usr/bin/qemu-system-x86_64 -name one","args":["-name","one"]}
not JSON
{"msg":"starting QEMU","by_hand":"nsenter --net=/run/netns/f /usr/bin/qemu-system-x86_64 -name 'two words'","args":["-name","two words"]}
{"msg":"request completed"}`
	qemu, args, err := startOf([]byte(log))
	if err != nil || qemu != "/usr/bin/qemu-system-x86_64" || !slices.Equal(args, []string{"-name", "two words"}) {
		t.Errorf("%q, %q, %v", qemu, args, err)
	}
	if _, args, err := startOf([]byte(`{"msg":"listening"}`)); err == nil {
		t.Errorf("without one: %q", args)
	}
}

// twoNICs is the part of a command line that is about descriptors.
var twoNICs = []string{
	"-chardev", "socket,id=qmp,fd=4", "-chardev", "socket,id=com1,fd=5",
	"-netdev", "tap,id=net-net0,fd=6", "-device", "virtio-net-pci,id=dev-net0,netdev=net-net0",
	"-netdev", "tap,id=net-net1,fd=7", "-device", "virtio-net-pci,id=dev-net1,netdev=net-net1",
	"-chardev", "socket,id=agent,fd=8", "-device", "virtserialport,chardev=agent",
}

func TestInterfacesKeepsTheFirstAndChangesWhatItIsConnectedTo(t *testing.T) {
	got := strings.Join(interfaces(twoNICs, "stream,id=%s,server=on"), " ")
	want := "-chardev socket,id=qmp,fd=4 -chardev socket,id=com1,fd=5 " +
		"-netdev stream,id=net-net0,server=on -device virtio-net-pci,id=dev-net0,netdev=net-net0 " +
		"-chardev socket,id=agent,fd=8 -device virtserialport,chardev=agent"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := strings.Join(interfaces(twoNICs, ""), " "); !strings.Contains(got, "tap,id=net-net0,fd=6") || strings.Contains(got, "net1") {
		t.Errorf("with its tap: %s", got)
	}
}

// opened opens the descriptors of a machine, and closes them at the end.
func opened(t *testing.T, m *bareMachine) []*os.File {
	t.Helper()
	files, conns, err := m.files()
	t.Cleanup(func() {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
		for _, c := range conns {
			c.Close()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestFilesAreWhereTheCommandLineHasThem(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "state"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var taps []*os.File
	for range 2 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		taps = append(taps, f)
	}
	clone := append([]string{"-object", "memory-backend-file,id=ram,mem-path=" + dir + "/ram,share=off", "-incoming", "defer"}, twoNICs...)
	m := &bareMachine{line: commandLine{args: clone}, args: clone, taps: taps}
	files := opened(t, m)
	if len(files) != 6 || m.stateFD != 3 || files[0].Name() != filepath.Join(dir, "state") || files[3] != taps[0] || files[4] != taps[1] {
		t.Errorf("%d files, the state is %d", len(files), m.stateFD)
	}

	// A machine that boots has no state, whatever numbers are free.
	m = &bareMachine{line: commandLine{args: twoNICs}, args: interfaces(twoNICs, "stream,id=%s")}
	files = opened(t, m)
	if m.stateFD != 0 || files[0] != nil || files[3] != nil || files[5] == nil {
		t.Errorf("of a machine that boots: %v, the state is %d", files, m.stateFD)
	}
}

func TestFilesRefusesACommandLineThatItDoesNotKnow(t *testing.T) {
	for name, args := range map[string][]string{
		"no agent":              {"-chardev", "socket,id=qmp,fd=3"},
		"no tap":                twoNICs,
		"no id":                 {"-chardev", "socket,fd=3"},
		"no room for the state": {"-incoming", "defer", "-chardev", "socket,id=qmp,fd=3", "-chardev", "socket,id=agent,fd=4"},
	} {
		m := &bareMachine{line: commandLine{args: args}, args: args}
		files, conns, err := m.files()
		if err == nil {
			t.Errorf("%s: it was taken", name)
		}
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
		for _, c := range conns {
			c.Close()
		}
	}
}

// playQEMU answers QMP commands with what a test says, by their names.
func playQEMU(t *testing.T, answers map[string]string) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	go func() {
		_, _ = theirs.Write([]byte(`{"QMP":{}}`))
		in := bufio.NewScanner(theirs)
		for in.Scan() {
			var request struct{ Execute string }
			_ = json.Unmarshal(in.Bytes(), &request)
			answer := answers[request.Execute]
			if answer == "" {
				answer = `{"return":{}}`
			}
			_, _ = theirs.Write([]byte(answer))
		}
	}()
	return ours
}

func TestMonitorWaitsForTheEndOfTheMigration(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		ok     bool
	}{
		"before the answer": {`{"event":"MIGRATION","data":{"status":"setup"}}{"event":"MIGRATION","data":{"status":"completed"}}{"return":{}}`, true},
		"after the answer":  {`{"return":{}}{"event":"MIGRATION","data":{"status":"active"}}{"event":"MIGRATION","data":{"status":"completed"}}`, true},
		"failed":            {`{"return":{}}{"event":"MIGRATION","data":{"status":"failed"}}`, false},
		"refused":           {`{"error":{"desc":"no such thing"}}`, false},
	} {
		m, err := newMonitor(playQEMU(t, map[string]string{"migrate-incoming": c.answer}))
		if err == nil {
			err = m.restore(3)
		}
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
