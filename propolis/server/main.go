package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/propolis"
	"github.com/falcon-vm/falcon-go/propolis/internal/confine"
	"github.com/falcon-vm/falcon-go/propolis/internal/qemu"
)

// version is the program's version, as -V prints it.
const version = "0.1.0"

const (
	// shutdownWait is how long answers in progress may take when the server
	// ends.
	shutdownWait = 2 * time.Second
	// headerWait is how long a client may take to send a request's header.
	headerWait = 10 * time.Second
)

// config is what a server is told on its command line.
type config struct {
	addr  string
	agent string // where the guest agent's clients are served; empty for nowhere
	asic  string // the same for clients of the machine's ASIC
	vnc   string // the same for viewers of the machine's screen
	// vncPassword is the path of the file with the viewers' password.
	vncPassword string
	grace       time.Duration
	level       string
	// logLimit is the size in bytes that log and stderr are kept below, 0 for
	// none.
	logLimit int64
	qemu     qemu.Config // what all instances have in common

	template     string
	makeTemplate bool
	bases        []string
	endWith      int // an inherited descriptor, 0 for none
}

// Main runs propolis-server with the arguments after the program's name until
// ctx ends, and returns the exit status. The instance ends with it.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cmd := newCommand()
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", serverName, err)
		return 1
	}
	return 0
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           serverName,
		Short:         "Serve the Propolis API, with QEMU as the machine",
		Version:       fmt.Sprintf("%s (API versions 1.0.0 to %s)", version, newest()),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.Flags().BoolP("version", "V", false, "print the version")
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(newRunCommand())
	return root
}

func newRunCommand() *cobra.Command {
	var cfg config
	cmd := &cobra.Command{
		Use:   "run [flags] BOOTROM ADDR [VNC]",
		Short: "Run the server until it is told to end",
		Long: `Run the server until it is told to end.

BOOTROM is the path of a firmware image, or "bios" (QEMU's SeaBIOS), "uefi"
(the host's OVMF) or "kernel" (none: see --kernel).
ADDR is where the API is served: IP:PORT, unix:PATH (mode 0600) or fd:N (an
inherited listening socket).
VNC is where the guest's screen is served: unix:PATH (mode 0600), fd:N, or
IP:PORT, which needs --vnc-password-file.`,
		Args: cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg.qemu.Firmware, cfg.addr = args[0], args[1]
			if len(args) > 2 {
				cfg.vnc = args[2]
			}
			return run(cmd.Context(), cfg, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.qemu.Kernel, "kernel", "", "kernel to boot: a bzImage or a PVH vmlinux")
	f.StringVar(&cfg.qemu.Initrd, "initrd", "", "the kernel's initial file system")
	f.StringVar(&cfg.qemu.Append, "append", "", "the kernel's command line")
	f.StringVar(&cfg.qemu.Accel, "accel", cmp.Or(os.Getenv(qemu.AccelEnv), "auto"), "auto, kvm or tcg")
	f.StringVar(&cfg.qemu.NetNS, "netns", "", "path of the network namespace of plain vnic names")
	f.StringVar(&cfg.qemu.QEMU, "qemu", "", "QEMU binary (default: found in PATH)")
	f.IntVar(&cfg.qemu.IDBase, "id-base", confine.FirstID, fmt.Sprintf("first of the %d ids that QEMU runs as if root starts it", confine.IDs))
	f.StringArrayVar(&cfg.bases, "base", nil, "BACKEND=PATH: the disk of that storage backend may stand on that file, and on no other that is not given")
	f.StringVar(&cfg.qemu.PIDFile, "pidfile", "", "file for QEMU's process id")
	f.StringVar(&cfg.template, "template", "", "folder of the template that instances are made of")
	f.BoolVar(&cfg.makeTemplate, "make-template", false, "boot the instance, to be kept as the template")
	f.IntVar(&cfg.endWith, "end-with", 0, "number of an inherited pipe: end when nobody holds its other end any more")
	f.StringVar(&cfg.agent, "agent-socket", "", "give the guest a port for falcon's agent and serve its clients there: unix:PATH or fd:N")
	f.StringVar(&cfg.asic, "softnpu-socket", "", "serve the management channel of a SoftNPU ASIC there too: unix:PATH or fd:N")
	f.StringVar(&cfg.vncPassword, "vnc-password-file", "", "file whose first line is the password of viewers, at most 8 characters")
	f.DurationVar(&cfg.grace, "stop-grace", 10*time.Second, "time for a guest to power off when stopped")
	f.StringVar(&cfg.level, "log-level", "info", "trace, debug, info, warn, error or critical")
	f.Int64Var(&cfg.logLimit, "log-limit", 0, "size in bytes below which the log and standard error are kept where they are files; 0 for none")
	// Upstream's flags, which have no meaning here.
	f.String("bootrom-version", "", "accepted for compatibility")
	f.String("metric-addr", "disable", "accepted for compatibility")
	_ = f.MarkHidden("bootrom-version")
	_ = f.MarkHidden("metric-addr")
	return cmd
}

// parseBases reads the values of --base.
func parseBases(values []string) (map[string][]string, error) {
	bases := make(map[string][]string)
	for _, v := range values {
		backend, path, ok := strings.Cut(v, "=")
		if !ok || backend == "" || path == "" {
			return nil, fmt.Errorf("--base %q: want BACKEND=PATH", v)
		}
		bases[backend] = append(bases[backend], path)
	}
	return bases, nil
}

// run serves until ctx ends.
func run(ctx context.Context, cfg config, stdout, stderr io.Writer) error {
	level, err := parseLevel(cfg.level)
	if err != nil {
		return err
	}
	stdout, stderr = bound(stdout, cfg.logLimit), bound(stderr, cfg.logLimit)
	if cfg.qemu.Bases, err = parseBases(cfg.bases); err != nil {
		return err
	}
	if id := cfg.qemu.IDBase; id < confine.FirstID || id > confine.EndID-confine.IDs {
		return fmt.Errorf("--id-base %d: want %d to %d", id, confine.FirstID, confine.EndID-confine.IDs)
	}
	log := newLogger(stdout, level)
	l, err := listen(ctx, cfg.addr)
	if err != nil {
		return err
	}
	if cfg.endWith != 0 {
		var end context.CancelFunc
		ctx, end = endWith(ctx, cfg.endWith)
		defer end()
	}
	cfg.qemu.Log, cfg.qemu.Stderr = log, stderr
	if cfg.template != "" {
		cfg.qemu.Template = &qemu.Template{Dir: cfg.template, Make: cfg.makeTemplate}
	}
	var relay *agentRelay
	var desk *asicDesk
	var served sync.WaitGroup
	defer served.Wait()
	clients, cancel := context.WithCancel(ctx)
	defer cancel()
	if cfg.agent != "" {
		al, err := listen(ctx, cfg.agent)
		if err != nil {
			l.Close()
			return err
		}
		cfg.qemu.Agent, relay = true, newAgentRelay()
		served.Go(func() { relay.serve(clients, al) })
	}
	if cfg.asic != "" {
		al, err := listen(ctx, cfg.asic)
		if err != nil {
			l.Close()
			return err
		}
		desk = &asicDesk{}
		served.Go(func() { desk.serve(clients, al) })
	}
	var viewers net.Listener
	if cfg.vnc != "" {
		if viewers, err = cfg.openScreen(ctx); err != nil {
			l.Close()
			return err
		}
	}
	s := &server{log: log, stderr: stderr, start: starter(cfg.qemu), grace: cfg.grace, screen: viewers != nil, agent: relay, asic: desk, template: cfg.template}
	if viewers != nil {
		served.Go(func() { s.serveViewers(clients, viewers) })
	}
	return s.serve(ctx, l)
}

// endWith returns a context that ends when nobody holds the other end of an
// inherited pipe any more.
func endWith(ctx context.Context, fd int) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancel(ctx)
	pipe := os.NewFile(uintptr(fd), "end")
	go func() {
		_, _ = io.Copy(io.Discard, pipe)
		end()
	}()
	return ctx, end
}

// openScreen has instances have a screen, and opens the listener for viewers.
func (cfg *config) openScreen(ctx context.Context) (net.Listener, error) {
	password, err := ReadPassword(cfg.vncPassword)
	if err != nil {
		return nil, err
	}
	cfg.qemu.Screen, cfg.qemu.ScreenPassword = true, password
	return listenScreen(ctx, cfg.vnc, password)
}

// starter returns the function that makes QEMU machines of a configuration.
func starter(common qemu.Config) StartFunc {
	return func(ctx context.Context, props propolis.InstanceProperties, spec propolis.InstanceSpec) (Machine, error) {
		cfg := common
		cfg.ID, cfg.Name, cfg.Spec = props.ID, props.Name, spec
		m, err := qemu.Start(ctx, cfg)
		if err != nil {
			return nil, err // and not m, which would be a machine that is not nil
		}
		return m, nil
	}
}

// serve answers requests on l until ctx ends. It ends the instance before it
// returns.
func (s *server) serve(ctx context.Context, l net.Listener) error {
	conns, drop := context.WithCancel(context.Background())
	defer drop()
	var end context.CancelFunc
	s.ctx, end = context.WithCancel(ctx)
	defer end()
	s.conns = conns
	hs := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: headerWait,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(l) }()
	s.log.Info("listening", "local_addr", localAddr(l))

	var err error
	select {
	case <-ctx.Done():
		s.log.Info("ending")
	case err = <-served:
		s.log.Error("cannot serve", "error", err.Error())
		end()
	}
	s.close()
	wait, cancel := context.WithTimeout(context.Background(), shutdownWait)
	defer cancel()
	if herr := hs.Shutdown(wait); herr != nil {
		_ = hs.Close()
	}
	s.closeStreams(drop)
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// closeStreams gives websockets a moment to end by themselves, as they do when
// the instance has ended, and then ends them.
func (s *server) closeStreams(drop context.CancelFunc) {
	force := time.AfterFunc(shutdownWait, drop)
	defer force.Stop()
	s.streams.Wait()
}

// localAddr is the listener's address as clients give it.
func localAddr(l net.Listener) string {
	addr := l.Addr()
	if strings.HasPrefix(addr.Network(), "unix") {
		return "unix:" + addr.String()
	}
	return addr.String()
}
