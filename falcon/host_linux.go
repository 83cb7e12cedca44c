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

func newNativeHost(dataset, topology string, folder *state.Folder, log *slog.Logger) (host, error) {
	images, err := image.Open(image.Options{Dataset: dataset})
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
	socket, err := listenSocket(l.folder, np.Name+socketExt)
	if err != nil {
		return nil, fmt.Errorf("its server's socket: %w", err)
	}
	defer socket.Close()
	stdout, err := os.OpenFile(l.folder.File(np.Name+outExt), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	// Only the words of this run are worth reading in an error.
	stderr, err := os.OpenFile(l.folder.File(np.Name+errExt), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	cfg := process.Config{
		Path: selfPath, Name: serverName, Lower: server.Lower,
		Dir: l.folder.Path(), Stdout: stdout, Stderr: stderr, Files: []*os.File{socket},
	}
	agent := ""
	if np.Agent != "" && l.propolis == "" { // other servers do not know of it
		clients, err := listenSocket(l.folder, np.Name+agentExt)
		if err != nil {
			return nil, fmt.Errorf("the guest agent's socket: %w", err)
		}
		defer clients.Close()
		cfg.Files = append(cfg.Files, clients)
		agent = fmt.Sprintf("fd:%d", process.GateFD+len(cfg.Files))
	}
	asic := ""
	if np.ASIC && l.propolis == "" {
		clients, err := listenSocket(l.folder, np.Name+asicExt)
		if err != nil {
			return nil, fmt.Errorf("the ASIC's socket: %w", err)
		}
		defer clients.Close()
		cfg.Files = append(cfg.Files, clients)
		asic = fmt.Sprintf("fd:%d", process.GateFD+len(cfg.Files))
	}
	screen := np.VNC
	if strings.HasPrefix(screen, "unix:") && l.propolis == "" {
		viewers, err := listenSocket(l.folder, np.Name+vncExt)
		if err != nil {
			return nil, fmt.Errorf("the screen's socket: %w", err)
		}
		defer viewers.Close()
		cfg.Files = append(cfg.Files, viewers)
		screen = fmt.Sprintf("fd:%d", process.GateFD+len(cfg.Files))
	}
	cfg.Args = serverArgs(np, h.namespacePath(), agent, asic, screen)
	if l.propolis == "" {
		// Flags may follow what is no flag.
		confinement, err := h.confinement(l, np, o)
		if err != nil {
			return nil, err
		}
		cfg.Args = append(cfg.Args, confinement...)
	}
	if o.template != "" {
		cfg.Args = append(cfg.Args, "--template", o.template)
	}
	var tie *os.File
	if o.make { // nobody would look for it if this process were killed
		ours, theirs, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer ours.Close()
		cfg.Files, tie = append(cfg.Files, ours), theirs
		cfg.Args = append(cfg.Args, "--make-template", "--end-with", strconv.Itoa(process.GateFD+len(cfg.Files)))
	}
	if l.propolis != "" {
		cfg.Name = starterName
		cfg.Args = append([]string{l.propolis}, cfg.Args...)
	}
	if err := l.folder.WriteNote(np.Name+uuidExt, []byte(o.id+"\n")); err != nil {
		return nil, err
	}
	p, err := process.Start(cfg, record)
	if err != nil {
		if tie != nil {
			tie.Close()
		}
		return nil, err
	}
	if tie != nil {
		go func() {
			<-p.Done()
			tie.Close()
		}()
	}
	return p, l.folder.WriteNote(np.Name+pidExt, fmt.Appendf(nil, "%d\n", p.PID))
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
func (h *linuxHost) end(ctx context.Context, f *state.Folder, o state.Object) error {
	if o.Process != nil {
		// Only while its server lives is the number that it wrote down
		// surely the hypervisor's.
		var vmm process.Identity
		if pid := vmmPID(f, o.Name); pid > 0 && o.Process.Alive() {
			vmm, _ = process.Identify(pid)
		}
		if err := o.Process.Terminate(ctx, endGrace); err != nil {
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
