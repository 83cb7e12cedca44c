package falcon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/illumos"
	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/process"
	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/propolis"
)

// illumosHost runs nodes with Propolis' own server on bhyve. Everything that it
// does there is a command, a file or a process, so that it is compiled, and
// tested against a model of those commands, on every system.
type illumosHost struct {
	*simnets
	images   image.Store
	runner   illumos.Runner
	programs *programs
	log      *slog.Logger
	// root says whether this process may change the host.
	root bool
	// portWait is how long a server may take to say its port.
	portWait time.Duration
}

// defaultPortWait is that of upstream's falcon three times over: a host that
// starts many servers at once is slow.
const defaultPortWait = 30 * time.Second

func newIllumosHost(images image.Store, topology string, folder *state.Folder, log *slog.Logger) (*illumosHost, error) {
	self, err := process.Identify(os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("telling this run of the host from earlier ones: %w", err)
	}
	run := illumos.Exec{}
	return &illumosHost{
		simnets: &simnets{
			topology: topology, folder: folder, dladm: illumos.Dladm{Runner: run},
			claims: illumos.Claims{Dir: filepath.Join(images.Home(), "links"), Boot: self.Boot},
		},
		images: images, runner: run, log: log, root: os.Geteuid() == 0, portWait: defaultPortWait,
		programs: &programs{home: images.Home(), from: upstreamSources, runner: run},
	}, nil
}

func (h *illumosHost) store() image.Store { return h.images }

func (h *illumosHost) kind() string { return HostIllumos }

func (h *illumosHost) registry() state.Registry {
	return state.Registry{Dir: registryDir(h.images.Home())}
}

// illumosLimits are those of every illumos host with today's Propolis.
var illumosLimits = hostLimits{
	maxMounts: 1, maxMTU: illumos.MaxMTU, firmwareOnly: true, bareExclusive: true, bareVNC: true, noPanic: true,
	noUser: "bhyve has none; use ExtLink or DefaultExtLink",
}

// noSidecarHere is why sidecar links cannot be had.
const noSidecarHere = "a sidecar multiplexer: Propolis has none any more"

// noProgramHere is why no P4 source can be given.
const noProgramHere = "the SoftNPU of Propolis takes compiled programs, and only from its guest: leave it out, and use scadm there"

func (h *illumosHost) look(ctx context.Context, t *Topology) (hostFacts, error) {
	f := hostFacts{noSidecar: noSidecarHere, noProgram: noProgramHere, hostLimits: illumosLimits}
	have, err := h.dladm.Links(ctx)
	if err != nil {
		return f, err
	}
	f.defaultInterface, err = illumos.DefaultRouteLink(ctx, h.runner)
	if err != nil && !errors.Is(err, illumos.ErrNoDefaultRoute) {
		return f, err
	}
	pages, err := illumos.FreePages(ctx, h.runner)
	if err != nil {
		return f, err
	}
	f.freeMemory = Bytes(pages) * Bytes(os.Getpagesize())
	f.checks = append(f.checks, h.privilege(), h.programs.check(t.Propolis), h.nameChecks(t, have))
	f.checks = append(f.checks, h.interfaceChecks(ctx, t, have, f.defaultInterface)...)
	return f, nil
}

// privilege says how to get the right to change links and to run guests.
func (h *illumosHost) privilege() Check {
	c := Check{Name: "privilege", Detail: "root"}
	if !h.root {
		c.Err = fmt.Errorf("making links and running guests needs root's privileges: pfexec %s", illumos.Command(os.Args))
	}
	return c
}

// prepare has the programs ready before anything else is made.
func (h *illumosHost) prepare(ctx context.Context, l *lab) error {
	if err := h.privilege().Err; err != nil {
		return err
	}
	_, err := h.programs.get(ctx, l.propolis, l.report)
	return err
}

// runExt is the extension of the folder that a node's server works in: it
// writes what the firmware has to say into debug.out there.
const runExt = ".run"

// loopback is where servers listen: they know no password.
const loopback = "::1"

func (h *illumosHost) serve(ctx context.Context, l *lab, np *NodePlan, o serveOptions, record func(process.Identity) error) (nodeServer, error) {
	if err := h.privilege().Err; err != nil {
		return nil, err
	}
	bin, err := h.programs.get(ctx, l.propolis, l.report)
	if err != nil {
		return nil, err
	}
	if err := l.folder.RemoveFile(np.Name + portExt); err != nil {
		return nil, err
	}
	if err := l.folder.Mkdir(np.Name + runExt); err != nil {
		return nil, err
	}
	stdout, err := l.folder.OpenLog(np.Name+outExt, false)
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	begin, err := stdout.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	stderr, err := l.folder.OpenLog(np.Name+errExt, true)
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	command := serverCommand(bin, np)
	if err := l.folder.WriteNote(np.Name+uuidExt, []byte(o.id+"\n")); err != nil {
		return nil, err
	}
	mark := l.mark(np.Name)
	mark.Program = command[0]
	server, err := process.Start(process.Config{
		Path: selfPath, Name: starterName, Args: command, Dir: l.folder.File(np.Name + runExt),
		Env: append(mark.Env(), "RUST_BACKTRACE=full"), Stdout: stdout, Stderr: stderr,
	}, record)
	if err != nil {
		return nil, err
	}
	port, err := awaitPort(ctx, stdout, begin, h.portWait, server)
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, l.lastWords(np.Name))
	}
	err = errors.Join(l.folder.WriteNote(np.Name+portExt, []byte(port+"\n")),
		l.folder.WriteNote(np.Name+pidExt, fmt.Appendf(nil, "%d\n", server.PID)))
	if err != nil {
		return nil, err
	}
	return server, h.tryAPI(ctx, l, np.Name, bin)
}

// serverCommand is what runs the server of a node: the arguments are those that
// Propolis' own server takes.
func serverCommand(bin paths, np *NodePlan) illumos.Command {
	c := illumos.Command{bin.propolis, "run", bin.firmware, net.JoinHostPort(loopback, "0")}
	if np.VNC != "" {
		c = append(c, np.VNC)
	}
	return c
}

// portLook is how often a server's log is looked at for its port. Illumos and
// Linux have no event in common for a file that grows, and it takes a server a
// tenth of a second to get there.
const portLook = 10 * time.Millisecond

// awaitPort waits until a server has written to its log, from an offset on, at
// which port it listens.
func awaitPort(ctx context.Context, log io.ReaderAt, from int64, wait time.Duration, server nodeServer) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("its propolis-server has not said within %v at which port it listens", wait))
	defer cancel()
	tick := time.NewTicker(portLook)
	defer tick.Stop()
	for {
		data, err := io.ReadAll(io.NewSectionReader(log, from, maxPortLog))
		if err != nil {
			return "", err
		}
		if port := findPort(data); port != "" {
			return port, nil
		}
		select {
		case <-server.Done():
			return "", fmt.Errorf("its propolis-server ended (%w) before it listened", errors.Join(server.Err()))
		case <-ctx.Done():
			return "", fmt.Errorf("%w; its log ends with: %s", context.Cause(ctx), lastLine(data))
		case <-tick.C:
		}
	}
}

// maxPortLog bounds what is read of a log, in bytes.
const maxPortLog = 1 << 20

// findPort returns the port of the first whole line of a bunyan log that names
// the address on which its writer listens.
func findPort(log []byte) string {
	for {
		line, rest, whole := bytes.Cut(log, []byte("\n"))
		if !whole {
			return ""
		}
		log = rest
		var entry struct {
			LocalAddr string `json:"local_addr"`
		}
		if json.Unmarshal(line, &entry) != nil {
			continue // other programs may have written into it
		}
		if _, port, err := net.SplitHostPort(entry.LocalAddr); err == nil && port != "0" {
			return port
		}
	}
}

func lastLine(log []byte) string {
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return fmt.Sprintf("%.200q", lines[len(lines)-1])
}

// tryAPI asks a fresh server for its instance, of which it has none yet: this is
// how one that does not speak our version of the API is found out.
func (h *illumosHost) tryAPI(ctx context.Context, l *lab, node string, bin paths) error {
	client, err := h.client(l.folder, node)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, statusDeadline)
	defer cancel()
	_, err = client.Instance(ctx)
	if err == nil || isNoInstance(err) {
		return nil
	}
	return serverFault(fmt.Errorf("asking its propolis-server (%s) for the first time: %w", bin.propolis, err))
}

// serverFault says in the user's terms what an answer of a Propolis server
// means for the server itself.
func serverFault(err error) error {
	var e *propolis.Error
	if !errors.As(err, &e) || e.Status != http.StatusBadRequest && e.Status != http.StatusNotFound {
		return err
	}
	switch said := strings.ToLower(e.Message); {
	case strings.Contains(said, "api version") || strings.Contains(said, "api-version"):
		return fmt.Errorf("the propolis-server is too old: it does not speak API version %s: leave out --propolis, or name a newer one (revision %s does): %w",
			propolis.APIVersion, propolisRevision, err)
	case strings.Contains(said, "unable to parse json body"):
		return fmt.Errorf("the propolis-server does not understand the machine that it is to make, probably because it is too old: leave out --propolis, or name one that speaks API version %s (revision %s does): %w",
			propolis.APIVersion, propolisRevision, err)
	case strings.Contains(said, "compiled out via falcon") || strings.Contains(said, "disabled by compile-time options"):
		return fmt.Errorf("the propolis-server is built without the feature \"falcon\", and so has no SoftNPU and no 9p: leave out --propolis, or name one that is built with it: %w", err)
	}
	return err
}

func (h *illumosHost) client(f *state.Folder, node string) (*propolis.Client, error) {
	addr, err := portAddress(f, node)
	if err != nil {
		return nil, err
	}
	return propolis.NewClient(addr)
}

// portAddress returns where the server of a node listens.
func portAddress(f *state.Folder, node string) (string, error) {
	port, err := f.ReadFile(node + portExt)
	if err != nil {
		return "", fmt.Errorf("where its propolis-server listens: %w", err)
	}
	return net.JoinHostPort(loopback, strings.TrimSpace(string(port))), nil
}

func (h *illumosHost) address(f *state.Folder, node string) string {
	addr, err := portAddress(f, node)
	if err != nil {
		return ""
	}
	return addr
}

// end ends the process of a node's server, and removes its virtual machine from
// the kernel, which keeps it when the server is gone.
func (h *illumosHost) end(ctx context.Context, f *state.Folder, o state.Object, grace time.Duration) error {
	if o.Process != nil {
		if err := o.Process.Terminate(ctx, grace); err != nil {
			return err
		}
	}
	uuid, err := instanceUUID(f, o.Name)
	if err != nil {
		return err
	}
	if uuid != "" {
		if err := illumos.DestroyVM(ctx, h.runner, uuid); err != nil {
			return fmt.Errorf("removing its virtual machine: %w", err)
		}
	}
	return errors.Join(f.RemoveFile(o.Name+portExt), f.RemoveFile(o.Name+pidExt), f.RemoveTree(o.Name+runExt))
}

// instanceUUID returns the UUID of a node's instance, by its file or by the
// topology's record; empty when neither is there, and there was no instance.
func instanceUUID(f *state.Folder, node string) (string, error) {
	data, err := f.ReadFile(node + uuidExt)
	if err == nil {
		return strings.TrimSpace(string(data)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	r, err := loadRecord(f)
	if err != nil {
		return "", nil // a damaged record does not keep a destroy from going on
	}
	return r.IDs[node], nil
}

func (h *illumosHost) survey(ctx context.Context) []Check {
	checks := []Check{h.privilege(), {Name: "images", Detail: h.images.Why()}, h.programs.check("")}
	for _, look := range []struct {
		name string
		do   func() (string, error)
	}{
		{"links", func() (string, error) {
			have, err := h.dladm.Links(ctx)
			return fmt.Sprintf("simnet links and VNICs, by dladm; the host has %d links", len(have)), err
		}},
		{"default route", func() (string, error) { return illumos.DefaultRouteLink(ctx, h.runner) }},
		{"memory", func() (string, error) {
			pages, err := illumos.FreePages(ctx, h.runner)
			return fmt.Sprintf("%s free", Bytes(pages)*Bytes(os.Getpagesize())), err
		}},
	} {
		detail, err := look.do()
		if err != nil {
			detail = ""
		}
		checks = append(checks, Check{Name: look.name, Detail: detail, Err: err})
	}
	return checks
}
