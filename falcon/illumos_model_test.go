package falcon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/falcon/internal/illumos"
	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/server"
)

// The model is an illumos host of which only so much is there as falcon asks
// for: programs that keep its state in a file and answer in the formats, and
// with the errors, of dladm(8), route(8), ipadm(8), kstat(8) and bhyvectl(8),
// and a propolis-server whose machines are empty. A command line that falcon is
// not known to give is refused, so that the tests find it.

// modelEnv names the file with the state of the model.
const modelEnv = "FALCON_MODEL"

// modelPrograms are the programs of the model by name.
var modelPrograms = map[string]func(args []string) int{
	"dladm":           func(args []string) int { return runModel("dladm", args, (*model).dladm) },
	"route":           func(args []string) int { return runModel("route", args, (*model).route) },
	"ipadm":           func(args []string) int { return runModel("ipadm", args, (*model).ipadm) },
	"kstat":           func(args []string) int { return runModel("kstat", args, (*model).kstat) },
	"bhyvectl":        func(args []string) int { return runModel("bhyvectl", args, (*model).bhyvectl) },
	"propolis-server": modelPropolis,
}

// model is the state of the host.
type model struct {
	Links map[string]modelLinkState `json:"links"`
	// VMs are the virtual machines that the kernel knows, with the process
	// that made each.
	VMs map[string]int `json:"vms"`
	// Users are the processes that hold a VNIC open.
	Users        map[string]int `json:"users"`
	DefaultRoute string         `json:"default_route"`
	IP           []string       `json:"ip"`
	// Log are the command lines that were given.
	Log []string `json:"log"`

	// Busy is how often a link will still be busy, -1 for ever.
	Busy map[string]int `json:"busy"`
	// KillAt is the number of the changing command before which its caller
	// is killed; 0 for none.
	KillAt int `json:"kill_at"`
	// Propolis is how the propolis-server behaves.
	Propolis string `json:"propolis"`
}

type modelLinkState struct {
	Class, Over, Peer, MAC string
	MTU                    int
	Promiscuous            bool
}

// withModel changes the state in the file under a lock.
func withModel(change func(*model) error) error {
	f, err := os.OpenFile(os.Getenv(modelEnv), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	var m model
	if err := json.NewDecoder(f).Decode(&m); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	cerr := change(&m)
	data, err := json.MarshalIndent(m, "", " ")
	// In this order: a program of the model may be killed in between, and what
	// is behind the end of a state is not read.
	if err == nil {
		_, err = f.WriteAt(data, 0)
	}
	if err == nil {
		err = f.Truncate(int64(len(data)))
	}
	return errors.Join(cerr, err)
}

// said is the failure of a program with what it prints on stderr.
type said string

func (s said) Error() string { return string(s) }

func runModel(name string, args []string, program func(*model, []string) (string, error)) int {
	out := ""
	err := withModel(func(m *model) (err error) {
		m.Log = append(m.Log, illumos.Command(append([]string{name}, args...)).String())
		if m.KillAt > 0 && changes(m.Log[len(m.Log)-1]) {
			if m.KillAt--; m.KillAt == 0 {
				return syscall.Kill(os.Getppid(), syscall.SIGKILL)
			}
		}
		out, err = program(m, args)
		return err
	})
	fmt.Print(out)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// changes tells the commands that change something from those that look.
func changes(command string) bool {
	words := strings.Fields(command)
	return words[0] == "bhyvectl" || words[0] == "dladm" && !strings.HasPrefix(words[1], "show-")
}

func (m *model) dladm(args []string) (string, error) {
	line := strings.Join(args, " ")
	switch line {
	case "show-link -p -o link,class,mtu,state,over":
		var b strings.Builder
		for _, name := range slices.Sorted(maps.Keys(m.Links)) {
			l := m.Links[name]
			fmt.Fprintf(&b, "%s:%s:%d:up:%s\n", name, l.Class, l.MTU, l.Over)
		}
		return b.String(), nil
	case "show-simnet -p -o link,otherlink":
		var b strings.Builder
		for _, name := range slices.Sorted(maps.Keys(m.Links)) {
			if l := m.Links[name]; l.Class == "simnet" {
				fmt.Fprintf(&b, "%s:%s\n", name, l.Peer)
			}
		}
		return b.String(), nil
	}
	if len(args) < 3 || args[1] != "-t" {
		return "", said("dladm: the model does not know: " + line)
	}
	name := args[len(args)-1]
	if left := m.Busy[name]; left != 0 {
		m.Busy[name] = max(left-1, -1)
		return "", said("dladm: operation failed: link busy")
	}
	l, exists := m.Links[name]
	creates := strings.HasPrefix(args[0], "create-")
	switch {
	case creates && illumos.ValidLinkName(name) != nil:
		return "", said(fmt.Sprintf("dladm: invalid link name '%s'", name))
	case creates && exists:
		return "", said("dladm: creation failed: object already exists")
	case !creates && !exists:
		return "", said(fmt.Sprintf("dladm: invalid link name '%s'", name))
	}
	options := args[2 : len(args)-1]
	err := m.change(args[0], options, name, &l)
	if err == nil && !strings.HasPrefix(args[0], "delete-") {
		m.Links[name] = l
	}
	return "", err
}

// change does what a subcommand of dladm does to a link.
func (m *model) change(sub string, options []string, name string, l *modelLinkState) error {
	switch form := sub + " " + strings.Join(options, " "); {
	case form == "create-simnet ":
		*l = modelLinkState{Class: "simnet", MTU: 9000}
	case sub == "modify-simnet" && len(options) == 2 && options[0] == "-p":
		peer, ok := m.Links[options[1]]
		if !ok || peer.Class != "simnet" || l.Class != "simnet" {
			return said(fmt.Sprintf("dladm: invalid peer link name '%s'", options[1]))
		}
		peer.Peer, l.Peer = name, options[1]
		m.Links[options[1]] = peer
	case sub == "create-vnic" && len(options) == 4 && options[0] == "-l" && options[2] == "-m":
		over, ok := m.Links[options[1]]
		if !ok {
			return said(fmt.Sprintf("dladm: invalid link name '%s'", options[1]))
		}
		if _, err := net.ParseMAC(options[3]); err != nil {
			return said("dladm: invalid MAC address")
		}
		*l = modelLinkState{Class: "vnic", MTU: over.MTU, Over: options[1], MAC: options[3]}
	case form == "set-linkprop -p promisc-filtered=off" && l.Class == "vnic":
		l.Promiscuous = true
	case sub == "set-linkprop" && len(options) == 2 && strings.HasPrefix(options[1], "mtu="):
		mtu, err := strconv.Atoi(options[1][len("mtu="):])
		switch {
		case err != nil || mtu > 9000:
			return said("dladm: warning: cannot set link property 'mtu': invalid value")
		case m.hasVNIC(name):
			return said("dladm: warning: cannot set link property 'mtu': link busy")
		}
		l.MTU = mtu
	case form == "delete-vnic " && l.Class == "vnic":
		if pid := m.Users[name]; pid != 0 && syscall.Kill(pid, 0) == nil {
			return said("dladm: vnic deletion failed: link busy")
		}
		delete(m.Links, name)
	case form == "delete-simnet " && l.Class == "simnet":
		if m.hasVNIC(name) {
			return said("dladm: delete operation failed: link busy")
		}
		delete(m.Links, name)
	default:
		return said("dladm: the model does not know: " + form + " " + name)
	}
	return nil
}

func (m *model) hasVNIC(name string) bool {
	for _, l := range m.Links {
		if l.Over == name {
			return true
		}
	}
	return false
}

func (m *model) route(args []string) (string, error) {
	if strings.Join(args, " ") != "-n get default" {
		return "", said("route: the model does not know it")
	}
	if m.DefaultRoute == "" {
		return "", said("route: writing to routing socket: No such process")
	}
	return fmt.Sprintf("   route to: default\ndestination: default\n       mask: default\n    gateway: 192.0.2.1\n  interface: %s\n"+
		"      flags: <UP,GATEWAY,DONE,STATIC>\n recvpipe  sendpipe  ssthresh    rtt,ms rttvar,ms  hopcount      mtu     expire\n"+
		"       0         0         0         0         0         0      1500         0\n", m.DefaultRoute), nil
}

func (m *model) ipadm(args []string) (string, error) {
	if strings.Join(args, " ") != "show-if -p -o ifname" {
		return "", said("ipadm: the model does not know it")
	}
	return strings.Join(append([]string{"lo0"}, m.IP...), "\n") + "\n", nil
}

func (m *model) kstat(args []string) (string, error) {
	if strings.Join(args, " ") != "-p unix:0:system_pages:availrmem" {
		return "", said("kstat: the model does not know it")
	}
	return "unix:0:system_pages:availrmem\t4194304\n", nil
}

func (m *model) bhyvectl(args []string) (string, error) {
	if len(args) != 2 || args[0] != "--destroy" || !strings.HasPrefix(args[1], "--vm=") {
		return "", said("bhyvectl: the model does not know it")
	}
	uuid := strings.TrimPrefix(args[1], "--vm=")
	if _, ok := m.VMs[uuid]; !ok {
		return "", said(fmt.Sprintf("VM:%s is not created.", uuid))
	}
	delete(m.VMs, uuid)
	return "", nil
}

// modelPropolis is upstream's server as far as falcon sees it from outside. As
// that one does, it dies of a signal and leaves its virtual machine behind.
func modelPropolis(args []string) int {
	behaviour := ""
	if err := withModel(func(m *model) error {
		m.Log = append(m.Log, illumos.Command(append([]string{"propolis-server"}, args...)).String())
		behaviour = m.Propolis
		return nil
	}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if len(args) == 1 && args[0] == "-V" {
		if behaviour == "does not run" {
			fmt.Fprintln(os.Stderr, "ld.so.1: propolis-server: fatal: libdlpi.so.1: open failed")
			return 127
		}
		fmt.Println("propolis-server 0.1.0")
		return 0
	}
	if len(args) < 3 || args[0] != "run" {
		fmt.Fprintln(os.Stderr, "error: unrecognized subcommand")
		return 2
	}
	if _, err := os.Stat(args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("something that is no JSON")
	if behaviour == "dies" {
		fmt.Fprintln(os.Stderr, "thread 'main' panicked at bin/propolis-server/src/main.rs")
		return 101
	}
	l, err := net.Listen("tcp", args[2])
	if answers, ok := modelAnswers[behaviour]; ok && err == nil {
		fmt.Printf(`{"msg":"listening","v":0,"name":"propolis-server","level":30,"local_addr":%q}`+"\n", l.Addr())
		err = http.Serve(l, answers)
	} else if err == nil {
		err = server.Serve(context.Background(), l, server.Options{Start: startEmpty, Log: os.Stdout, Stderr: os.Stderr})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// answer answers every request with an error as dropshot writes it.
func answer(status int, message, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("content-type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(propolis.Error{Message: message, Code: code, RequestID: "1"})
	}
}

// modelAnswers are servers that cannot do what is asked of them, in the words
// of upstream's.
var modelAnswers = map[string]http.Handler{
	"too old":  answer(http.StatusBadRequest, "server does not support this API version: "+propolis.APIVersion, ""),
	"older":    refusing("unable to parse JSON body: missing field `nics` at line 1 column 1"),
	"stripped": refusing("failed to generate internal instance spec: support for component fs0 compiled out via falcon"),
}

// refusing is a server that has no instance and wants none.
func refusing(why string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /instance", answer(http.StatusFailedDependency, "Server not initialized (no instance)", propolis.CodeNoInstance))
	mux.Handle("PUT /instance", answer(http.StatusBadRequest, why, ""))
	return mux
}

// startEmpty makes a machine that bhyve would know and that does nothing.
func startEmpty(_ context.Context, p propolis.InstanceProperties, spec propolis.InstanceSpec) (server.Machine, error) {
	err := withModel(func(m *model) error {
		for name, c := range spec.Components {
			var vnic string
			switch c := c.(type) {
			case propolis.VirtioNetworkBackend:
				vnic = c.VNICName
			case propolis.DLPINetworkBackend:
				vnic = c.VNICName
			default:
				continue
			}
			if _, ok := m.Links[vnic]; !ok {
				return fmt.Errorf("backend %s: no link %s", name, vnic)
			}
			m.Users[vnic] = os.Getpid()
		}
		m.VMs[p.ID] = os.Getpid()
		return nil
	})
	if err != nil {
		return nil, err
	}
	guest, port := net.Pipe()
	return &emptyMachine{guest: guest, port: port, events: make(chan server.Event, 4)}, nil
}

// emptyMachine is a machine that powers off when it is told to.
type emptyMachine struct {
	guest, port net.Conn
	events      chan server.Event
	once        sync.Once
}

func (m *emptyMachine) Console() io.ReadWriteCloser { return m.port }
func (m *emptyMachine) Events() <-chan server.Event { return m.events }
func (m *emptyMachine) PID() int                    { return os.Getpid() }

func (m *emptyMachine) Run(context.Context) error { return nil }
func (m *emptyMachine) NMI(context.Context) error { return nil }

func (m *emptyMachine) Save(context.Context) error { return errors.New("there is nothing to save") }

func (m *emptyMachine) Reset(context.Context) error {
	m.events <- server.Event{Kind: server.Reset}
	return nil
}

func (m *emptyMachine) PowerDown(context.Context) error {
	m.events <- server.Event{Kind: server.Shutdown, ByGuest: true}
	return nil
}

func (m *emptyMachine) SwitchOverlay(context.Context, string, string) error {
	return errors.New("upstream's server cannot do that")
}

func (m *emptyMachine) Close(context.Context) error {
	m.once.Do(func() {
		m.guest.Close()
		m.events <- server.Event{Kind: server.Exited}
		close(m.events)
	})
	return nil
}

// newModel puts the model's programs into PATH and returns the folder of the
// model.
func newModel(t *testing.T, change func(*model)) string {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "path")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for name := range modelPrograms {
		if err := os.Symlink(testBinary(t), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv(modelEnv, filepath.Join(dir, "model.json"))
	changeModel(t, func(m *model) {
		m.Links = map[string]modelLinkState{"igb0": {Class: "phys", MTU: 1500}, "igb1": {Class: "phys", MTU: 1500}}
		m.VMs, m.Users, m.Busy = map[string]int{}, map[string]int{}, map[string]int{}
		m.DefaultRoute, m.IP = "igb0", []string{"igb0"}
		if change != nil {
			change(m)
		}
	})
	return dir
}

func testBinary(t *testing.T) string {
	t.Helper()
	path, err := modelBinary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func changeModel(t *testing.T, change func(*model)) {
	t.Helper()
	if err := withModel(func(m *model) error { change(m); return nil }); err != nil {
		t.Fatal(err)
	}
}

// modelState returns the state of the model.
func modelState(t *testing.T) model {
	t.Helper()
	var now model
	changeModel(t, func(m *model) { now = *m })
	return now
}

// hostLinks are the links of a model on which falcon has made nothing.
var hostLinks = []string{"igb0", "igb1"}

// names returns the names of all links of the model.
func (m model) names() []string { return slices.Sorted(maps.Keys(m.Links)) }
