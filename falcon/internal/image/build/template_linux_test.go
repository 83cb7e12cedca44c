package build

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/internal/mux"
)

// monitor is a connection to a guest's QMP.
type monitor struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

// monitor connects to a guest's QMP, which takes one connection at a time.
func (g *guest) monitor() *monitor {
	g.t.Helper()
	m := &monitor{t: g.t, conn: dialSocket(g.t, g.qmp)}
	m.r = bufio.NewReader(m.conn)
	m.do(`{"execute":"qmp_capabilities"}`)
	m.do(`{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"x-ignore-shared","state":true},{"capability":"events","state":true}]}}`)
	return m
}

// do has a command done.
func (m *monitor) do(command string) {
	m.t.Helper()
	_, err := io.WriteString(m.conn, command)
	must(m.t, err)
	m.await(command, func(said map[string]json.RawMessage) bool {
		if said["error"] != nil {
			m.t.Fatalf("%s: %s", command, said["error"])
		}
		return said["return"] != nil
	})
}

// migrated waits until a state has been saved or restored.
func (m *monitor) migrated() {
	m.t.Helper()
	m.await("the end of a migration", func(said map[string]json.RawMessage) bool {
		if strings.Contains(string(said["data"]), "failed") {
			m.t.Fatal("the migration has failed")
		}
		return strings.Contains(string(said["event"]), "MIGRATION") && strings.Contains(string(said["data"]), "completed")
	})
}

func (m *monitor) await(what string, done func(map[string]json.RawMessage) bool) {
	m.t.Helper()
	must(m.t, m.conn.SetReadDeadline(time.Now().Add(stepTimeout)))
	for {
		line, err := m.r.ReadBytes('\n')
		if err != nil {
			m.t.Fatalf("waiting for %s: %v", what, err)
		}
		var said map[string]json.RawMessage
		must(m.t, json.Unmarshal(line, &said))
		if done(said) {
			return
		}
	}
}

// dialSocket connects to a socket that a QEMU that has just started makes.
func dialSocket(t *testing.T, path string) net.Conn {
	t.Helper()
	for deadline := time.Now().Add(stepTimeout); ; {
		conn, err := net.Dial("unix", path)
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
			return conn
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond) // QEMU does not tell that it listens
	}
}

// valve is a connection that a test can keep from being read.
type valve struct {
	net.Conn
	sync.Mutex
}

func (v *valve) Read(p []byte) (int, error) {
	n, err := v.Conn.Read(p)
	v.Lock()
	defer v.Unlock()
	return n, err
}

// listen makes the socket of a guest's agent. A QEMU connects to it when it
// starts, and is never without it, as those of falcon are.
func listen(t *testing.T, path string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", path)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// agentOf talks to the agent of the guest that has connected.
func agentOf(t *testing.T, l net.Listener) (*agent.Client, *valve) {
	t.Helper()
	conn, err := l.Accept()
	must(t, err)
	port := &valve{Conn: conn}
	s := mux.Host(port)
	t.Cleanup(func() { s.Close() })
	return agent.New(func(ctx context.Context) (io.ReadWriteCloser, error) { return s.Open(ctx, nil) }), port
}

// script runs a script by a guest's agent and returns its output.
func script(t *testing.T, c *agent.Client, text string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stepTimeout)
	defer cancel()
	var out bytes.Buffer
	exit, err := c.Exec(ctx, agent.Command{Exec: agent.Exec{Argv: []string{"sh", "-c", text}}, Stdout: &out})
	must(t, err)
	if exit.Code() != 0 {
		t.Errorf("%s: status %d, output:\n%s", text, exit.Code(), out.String())
	}
	return strings.TrimSpace(out.String())
}

// The image of TestMicro is made by a user without a Go toolchain, and has no
// agent.
func TestMicroIsATemplate(t *testing.T) {
	needGuests(t)
	s := storeAt(t, t.TempDir())
	img, err := Builder{Store: s}.Ensure(t.Context(), "micro", nil)
	must(t, err)
	testTemplate(t, s, img, 256)
}

// testTemplate saves a guest of an image as a template, with calls under way,
// and works with clones of it.
func testTemplate(t *testing.T, s image.Store, img image.Image, megabytes int) {
	if img.Agent == "" {
		t.Skip("the image has no agent: there is no Go toolchain to compile it with")
	}
	disk := newDisk(t, s, img, "template")
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "given"), []byte("from the host"), 0o644))
	machine := func(name, share string, args ...string) []string {
		return append([]string{
			"-object", fmt.Sprintf("memory-backend-file,id=ram,size=%dM,mem-path=%s/ram,share=%s", megabytes, dir, share), "-machine", "memory-backend=ram",
			"-netdev", "user,id=n,restrict=on", "-device", "virtio-net-pci,netdev=n,addr=6,romfile=",
			"-fsdev", "local,id=share,security_model=none,readonly=on,path=" + dir, "-device", "virtio-9p-pci,fsdev=share,mount_tag=cargo,addr=7",
			"-chardev", "socket,id=agent,path=" + filepath.Join(dir, name),
			"-device", "virtio-serial-pci,addr=3", "-device", "virtserialport,chardev=agent,name=" + agent.Port,
		}, args...)
	}
	l := listen(t, filepath.Join(dir, "a"))
	g := boot(t, img, disk, megabytes, machine("a", "on")...)
	c, port := agentOf(t, l)
	script(t, c, "cd /sys/class/net; for i in e*; do ip link set $i up; done; "+
		"mkdir -p /etc/ssh; echo old >/etc/ssh/ssh_host_ed25519_key; mkdir -p /var/lib/systemd; echo old >/var/lib/systemd/random-seed")
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	began := time.Now()
	prepared, err := c.Prepare(ctx)
	must(t, err)
	t.Logf("prepared after %.1f s: %+v", time.Since(began).Seconds(), prepared)
	if len(prepared.Interfaces) != 1 {
		t.Errorf("the interfaces that were up were %q", prepared.Interfaces)
	}
	nic := prepared.Interfaces[0]
	if got := script(t, c, "cat /sys/class/net/"+nic+"/flags; ls /var/lib/systemd | grep random; grep 127.0.1.1 /etc/hosts; true"); got != "0x1002" {
		t.Errorf("the guest that is prepared has flags, files and names of its own: %q", got)
	}
	// Its host goes in the middle of everything: nobody reads the port, which is
	// full, and calls are under way in both directions.
	port.Lock()
	for range 8 {
		go func() {
			_, _ = c.Exec(ctx, agent.Command{Exec: agent.Exec{Argv: []string{"yes"}}, Stdout: io.Discard}) // ends with the test
		}()
	}
	g.sh("until [ $(pidof yes | wc -w) = 8 ]; do sleep 1; done; sleep 1")
	m := g.monitor()
	m.do(`{"execute":"stop"}`)
	m.do(`{"execute":"migrate","arguments":{"uri":"exec:cat >` + dir + `/state"}}`)
	m.migrated()
	must(t, g.cmd.Process.Kill())
	_ = g.cmd.Wait()
	port.Unlock()

	var seen [][]string
	for i, name := range []string{"violin", "cello"} {
		overlay := filepath.Join(dir, name+".qcow2")
		must(t, exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", disk, overlay).Run())
		l := listen(t, filepath.Join(dir, name))
		g := start(t, img, overlay, megabytes, machine(name, "off", "-S", "-incoming", "defer")...)
		m := g.monitor()
		m.do(`{"execute":"migrate-set-parameters","arguments":{"announce-rounds":0}}`)
		m.do(`{"execute":"migrate-incoming","arguments":{"uri":"exec:cat ` + dir + `/state"}}`)
		m.migrated()
		c, _ := agentOf(t, l)
		m.do(`{"execute":"cont"}`)
		// No clock of a guest is a thousand hours off by itself.
		id := agent.Identity{
			Entropy: make([]byte, 64), Time: time.Now().Add(1000 * time.Hour), Hostname: name, MachineID: strings.Repeat(fmt.Sprint(i), 32),
			SSHKeys: true, Mounts: []agent.Mount{{Tag: "cargo", Target: "/opt/cargo-bay"}},
		}
		_, _ = rand.Read(id.Entropy) // never fails
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		began := time.Now()
		_, err := c.Ping(ctx)
		must(t, err)
		answered := time.Since(began)
		must(t, c.Identify(ctx, id))
		t.Logf("%s answers after %v and is itself after %v", name, answered.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		out := strings.Split(script(t, c, "hostname; cat /etc/hostname /etc/machine-id; grep -c "+name+" /etc/hosts; cat /sys/class/net/"+nic+"/flags; cat /opt/cargo-bay/given; echo; date +%s; "+
			"while pidof yes >/dev/null; do sleep 1; done; cut -d ' ' -f 2,3 /etc/ssh/ssh_host_ed25519_key.pub; head -c 16 /dev/urandom | base64"), "\n")
		want := []string{name, name, id.MachineID, "1", "0x1003", "from the host"}
		if len(out) != len(want)+3 || !slices.Equal(out[:len(want)], want) {
			t.Fatalf("%s has %q", name, out)
		}
		var seconds int64
		_, err = fmt.Sscan(out[len(want)], &seconds)
		must(t, err)
		if off := time.Until(time.Unix(seconds, 0).Add(-1000 * time.Hour)).Abs(); off > 10*time.Second {
			t.Errorf("%s: its clock is %v off", name, off)
		}
		if !strings.HasSuffix(out[len(want)+1], " root@"+name) {
			t.Errorf("%s: its host key is %q", name, out[len(want)+1])
		}
		seen = append(seen, out[len(want)+1:])
		must(t, c.Identify(ctx, id)) // which changes nothing
	}
	for i := range seen[0] {
		if seen[0][i] == seen[1][i] {
			t.Errorf("two clones have the same: %s", seen[0][i])
		}
	}
}
