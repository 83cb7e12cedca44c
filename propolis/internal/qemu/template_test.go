package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/falcon-vm/falcon-go/propolis"
)

// template makes a template of the test guest with two NICs, and returns a
// function that gives the configuration of a clone with a disk of its own.
func template(t *testing.T) (dir string, clone func(macs ...string) Config) {
	t.Helper()
	dir = t.TempDir()
	config := func(disk string, macs ...string) Config {
		components := diskOn(disk)
		for i, mac := range macs {
			components = merge(components, nicOn("net"+string(rune('0'+i)), uint8(8+i), "user:?mac="+mac))
		}
		return testConfig(t, components)
	}
	cfg := config(biosDisk(t), "02:00:00:00:00:01", "02:00:00:00:00:02")
	cfg.Template = &Template{Dir: dir, Make: true}
	g := startGuest(t, cfg)
	g.run()
	g.expect(hello)
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	if err := g.Save(ctx); err != nil {
		t.Fatal(err)
	}
	g.end()
	return dir, func(macs ...string) Config {
		cfg := config(biosDisk(t), macs...)
		cfg.Template = &Template{Dir: dir}
		return cfg
	}
}

// memory is what the guest has in its memory.
func (g *guest) memory() []byte {
	g.t.Helper()
	// QEMU itself could write it to no file.
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", g.PID()))
	if err != nil {
		g.t.Fatal(err)
	}
	areas, err := mappings(string(list), filepath.Join(g.cfg.Template.Dir, ramFile))
	if err != nil {
		g.t.Fatal(err)
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", g.PID()))
	if err != nil {
		g.t.Fatal(err)
	}
	defer memory.Close()
	data := make([]byte, g.cfg.Spec.Board.MemoryMiB<<20)
	for _, a := range areas {
		if _, err := memory.ReadAt(data[a.offset:a.offset+a.end-a.start], a.start); err != nil {
			g.t.Fatal(err)
		}
	}
	return data
}

// mainMAC is the address by which a NIC goes.
func (g *guest) mainMAC(nic string) string {
	g.t.Helper()
	var filters []struct {
		Name string `json:"name"`
		MAC  string `json:"main-mac"`
	}
	if err := g.qmp.Execute(g.t.Context(), "query-rx-filter", nil, &filters); err != nil {
		g.t.Fatal(err)
	}
	for _, f := range filters {
		if f.Name == "dev-"+nic {
			return f.MAC
		}
	}
	g.t.Fatalf("there is no NIC %s: %+v", nic, filters)
	return ""
}

func TestClonesGoOnWhereTheTemplateStoppedWithTheirOwnAddresses(t *testing.T) {
	dir, clone := template(t)
	before, err := os.ReadFile(filepath.Join(dir, ramFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, macs := range [][]string{{"02:00:00:00:01:01", "02:00:00:00:01:02"}, {"02:00:00:00:02:01", "02:00:00:00:02:02"}} {
		begun := time.Now()
		g := startGuest(t, clone(macs...))
		g.run()
		g.send("xyz") // what booted in the template obeys, without a word before
		g.expect("xyz")
		t.Logf("a clone obeys after %v", time.Since(begun).Round(time.Millisecond))
		for i, want := range macs {
			if got := g.mainMAC("net" + string(rune('0'+i))); got != want {
				t.Errorf("NIC %d has the address %s, want %s", i, got, want)
			}
		}
		memory := g.memory()
		if id := smbiosID(uuid.MustParse(testID)); !bytes.Contains(memory, []byte(id)) || !bytes.Contains(memory, []byte(testID)) {
			t.Errorf("the clone's memory does not have its UUID, which its firmware has put there in the template")
		}
		for _, from := range []string{placeholderID.String(), smbiosID(placeholderID)} {
			if bytes.Contains(memory, []byte(from)) {
				t.Errorf("the clone's memory has the template's %q", from)
			}
		}
		g.send("r")
		g.expectEvent(Event{Kind: Reset, ByGuest: true})
		g.expect(hello) // a clone boots again like any machine
	}
	after, err := os.ReadFile(filepath.Join(dir, ramFile))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("clones have written to the template's memory (%v)", err)
	}
}

func TestTemplatesThatAreNoGoodAreRefused(t *testing.T) {
	dir, clone := template(t)
	state, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	two := []string{"02:00:00:00:01:01", "02:00:00:00:01:02"}
	for name, tt := range map[string]struct {
		state []byte
		macs  []string
		want  string
	}{
		"truncated":     {state[:len(state)/2], two, "damaged"},
		"empty":         {[]byte{}, two, "damaged"},
		"garbled":       {append(bytes.Repeat([]byte{7}, 64), state...), two, "damaged"},
		"other machine": {state, append(two, "02:00:00:00:01:03"), "another machine"},
		"missing":       {nil, two, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, stateFile)
			if tt.state == nil {
				_ = os.Remove(path)
			} else if err := os.WriteFile(path, tt.state, 0o600); err != nil {
				t.Fatal(err)
			}
			cfg := clone(tt.macs...)
			ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
			defer cancel()
			m, err := Start(ctx, cfg)
			if err == nil {
				_ = m.Close(ctx)
				t.Fatal("it is cloned")
			}
			if !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v, want %q in it", err, tt.want)
			}
			if _, err := os.Stat(cfg.PIDFile); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("QEMU's pid file is still there: %v", err)
			}
		})
	}
}

func TestOnlyAMachineThatIsToBeATemplateIsSaved(t *testing.T) {
	g := startGuest(t, testConfig(t, propolis.Components{}))
	if err := g.Save(t.Context()); err == nil {
		t.Error("it is saved")
	}
}
