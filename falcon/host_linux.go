package falcon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/process"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/server"
)

// selfPath is this program, also after its file has been replaced.
const selfPath = "/proc/self/exe"

// linuxHost runs nodes with the propolis-server inside this program, which
// uses QEMU.
type linuxHost struct {
	fabric
	images image.Store
	log    *slog.Logger
}

func newNativeHost(c hostChoice, topology string, folder *state.Folder, log *slog.Logger) (host, error) {
	images, err := image.Open(image.Options{Home: c.home, Dataset: c.dataset})
	if err != nil {
		return nil, err
	}
	return &linuxHost{fabric: newFabric(topology, folder), images: images, log: log}, nil
}

func (h *linuxHost) store() image.Store { return h.images }

func (h *linuxHost) kind() string { return HostNative }

func (h *linuxHost) registry() state.Registry {
	return state.Registry{Dir: registryDir(h.images.Home())}
}

func (h *linuxHost) look(ctx context.Context, t *Topology) (hostFacts, error) {
	var f hostFacts
	if h.namespace() == "" {
		f.noExternal = "that needs root; UserExtLink does not"
	}
	name, err := defaultInterface(ctx)
	if err != nil {
		return f, err
	}
	f.defaultInterface = name
	if f.freeMemory, err = freeMemory(); err != nil {
		return f, err
	}
	f.checks = append(f.checks, qemuCheck())
	f.checks = append(f.checks, h.interfaceChecks(ctx, t)...)
	return f, nil
}

func qemuCheck() Check {
	c := Check{Name: "qemu"}
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		c.Err = fmt.Errorf("qemu-system-x86_64 is not installed: apt-get install --no-install-recommends qemu-system-x86; or try the topology on the simulated host (%s=%s)", hostEnv, HostSim)
		return c
	}
	c.Detail = path
	return c
}

// serve starts the server of a node inside this program's binary. Its API is
// a socket that is bound here: connections wait there until it serves them.
func (h *linuxHost) serve(ctx context.Context, l *lab, np *NodePlan, o serveOptions, record func(process.Identity) error) (nodeServer, error) {
	if err := l.folder.WriteNote(np.Name+uuidExt, []byte(o.id+"\n")); err != nil {
		return nil, err
	}
	stdout, err := l.folder.OpenLog(np.Name+outExt, false)
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	// Only the words of this run are worth reading in an error.
	stderr, err := l.folder.OpenLog(np.Name+errExt, true)
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	s := serverSockets{folder: l.folder}
	defer s.close()
	args, err := h.serverCommand(l, np, o, &s)
	if err != nil {
		return nil, err
	}
	cfg := process.Config{
		Path: selfPath, Name: serverName, Args: args, Lower: server.Lower,
		Env: l.mark(np.Name).Env(), Dir: l.folder.Path(), Stdout: stdout, Stderr: stderr, Files: s.files,
	}
	if l.propolis != "" {
		mark := l.mark(np.Name)
		mark.Program = l.propolis
		cfg.Name, cfg.Env, cfg.Args = starterName, mark.Env(), append([]string{l.propolis}, args...)
	}
	start := process.Start
	if o.make { // nobody would look for it if this process were killed
		start = startTied
	}
	p, err := start(cfg, record)
	if err != nil {
		return nil, err
	}
	return p, l.folder.WriteNote(np.Name+pidExt, fmt.Appendf(nil, "%d\n", p.PID))
}

// startTied starts a server that ends with this process.
func startTied(cfg process.Config, record func(process.Identity) error) (*process.Process, error) {
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cfg.Files = append(cfg.Files, theirs)
	cfg.Args = append(cfg.Args, "--end-with", strconv.Itoa(process.GateFD+len(cfg.Files)))
	p, err := process.Start(cfg, record)
	if err != nil {
		ours.Close()
		return nil, err
	}
	go func() {
		<-p.Done()
		ours.Close()
	}()
	return p, nil
}

// serverSockets are sockets in a folder that a server inherits.
type serverSockets struct {
	folder *state.Folder
	files  []*os.File
}

// listen binds a socket, and returns the server's name for it.
func (s *serverSockets) listen(name, what string) (string, error) {
	file, err := listenSocket(s.folder, name)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	s.files = append(s.files, file)
	return fmt.Sprintf("fd:%d", process.GateFD+len(s.files)), nil
}

func (s *serverSockets) close() {
	for _, f := range s.files {
		f.Close()
	}
}

// serverCommand binds the sockets of a node's server and returns its arguments. What
// falcon's own has and no other is left out for another program.
func (h *linuxHost) serverCommand(l *lab, np *NodePlan, o serveOptions, s *serverSockets) (args []string, err error) {
	if _, err := s.listen(np.Name+socketExt, "its server's socket"); err != nil {
		return nil, err
	}
	own := l.propolis == ""
	agent, asic, screen := "", "", np.VNC
	if own && np.Agent != "" {
		if agent, err = s.listen(np.Name+agentExt, "the guest agent's socket"); err != nil {
			return nil, err
		}
	}
	if own && np.ASIC {
		if asic, err = s.listen(np.Name+asicExt, "the ASIC's socket"); err != nil {
			return nil, err
		}
	}
	if own && strings.HasPrefix(screen, "unix:") {
		if screen, err = s.listen(np.Name+vncExt, "the screen's socket"); err != nil {
			return nil, err
		}
	}
	args = serverArgs(np, h.namespacePath(), agent, asic, screen)
	if own {
		confinement, err := h.confinement(l, np, o)
		if err != nil {
			return nil, err
		}
		args = append(args, confinement...) // flags may follow what is no flag
	}
	if o.template != "" {
		args = append(args, "--template", o.template)
	}
	if o.make {
		args = append(args, "--make-template")
	}
	return args, nil
}

// logLimit bounds each of a node's two logs, in bytes: a client in a loop, or a
// guest that resets itself for ever, must not fill the host's disk.
const logLimit = 16 << 20

// serverArgs returns the arguments of a node's server. It works in the state
// folder, whose files are named without a path. Agent and asic are where it
// serves the guest agent and the ASIC, screen where it shows the screen; empty for
// nowhere.
func serverArgs(np *NodePlan, namespace, agent, asic, screen string) []string {
	args := []string{"run", "--pidfile", np.Name + vmmPIDExt, "--stop-grace", stopGrace.String(),
		"--log-limit", strconv.Itoa(logLimit)}
	if namespace != "" {
		args = append(args, "--netns", namespace)
	}
	if agent != "" {
		args = append(args, "--agent-socket", agent)
	}
	if asic != "" {
		args = append(args, "--softnpu-socket", asic)
	}
	if np.VNCPassword != "" {
		args = append(args, "--vnc-password-file", np.VNCPassword)
	}
	if np.Boot.Method == image.BootKernel {
		args = append(args, "--kernel", np.Boot.Kernel, "--initrd", np.Boot.Initrd, "--append", np.Boot.Append)
	}
	args = append(args, np.Boot.Method, fmt.Sprintf("fd:%d", process.GateFD+1))
	if screen != "" {
		args = append(args, screen)
	}
	return args
}

// confinement returns the arguments of a node's server that say as whom QEMU runs,
// and on which files the node's disk stands: the disk itself may say anything.
func (h *linuxHost) confinement(l *lab, np *NodePlan, o serveOptions) ([]string, error) {
	args := []string{"--id-base", strconv.Itoa(l.idBase())}
	files, ok := h.images.(interface {
		Bases(image.DiskOwner) ([]string, error)
	})
	if !ok || o.make { // a template's disk has not run yet
		return args, nil
	}
	bases, err := files.Bases(l.owner(np.Name))
	if err != nil {
		return nil, fmt.Errorf("finding what its disk stands on: %w", err)
	}
	for _, path := range bases {
		args = append(args, "--base", mainDiskBacking+"="+path)
	}
	return args, nil
}

// vmm identifies QEMU.
func (h *linuxHost) vmm() (string, error) { return server.VMM() }

// listenSocket binds a socket in the folder and returns its descriptor. The
// path may be longer than a socket address holds, so it goes by way of a
// descriptor of the folder.
func listenSocket(f *state.Folder, name string) (*os.File, error) {
	if err := f.RemoveFile(name); err != nil {
		return nil, err
	}
	dir, err := os.Open(f.Path())
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(f.File(name), 0o600); err != nil {
		return nil, err
	}
	return l.File()
}

func (h *linuxHost) client(f *state.Folder, node string) (*propolis.Client, error) {
	return propolis.NewClient("unix:" + f.File(node+socketExt))
}

func (h *linuxHost) address(f *state.Folder, node string) string { return f.File(node + socketExt) }

// end ends the process of a node's server. QEMU goes with it, and what it held
// goes with QEMU.
func (h *linuxHost) end(ctx context.Context, f *state.Folder, o state.Object, grace time.Duration) error {
	if o.Process != nil {
		vmm, _ := o.Process.Child(vmmPID(f, o.Name)) // nobody, when there is none
		if err := o.Process.Terminate(ctx, grace); err != nil {
			return err
		}
		if err := vmm.Wait(ctx); err != nil {
			return fmt.Errorf("its hypervisor, process %d, has not ended: %w", vmm.PID, err)
		}
	}
	return forgetServer(f, o.Name)
}

// forgetServer removes the files of a server that has ended.
func forgetServer(f *state.Folder, node string) error {
	return errors.Join(f.RemoveFile(node+socketExt), f.RemoveFile(node+agentExt), f.RemoveFile(node+asicExt), f.RemoveFile(node+vncExt),
		f.RemoveFile(node+pidExt), f.RemoveFile(node+vmmPIDExt))
}

func (h *linuxHost) space(path string) (Bytes, error) { return diskSpace(path) }

// diskSpace returns what is free where a path is, or will be.
func diskSpace(path string) (Bytes, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, err
	}
	return Bytes(s.Bavail * uint64(s.Bsize)), nil
}
