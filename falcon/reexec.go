package falcon

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/process"
	"github.com/falcon-vm/falcon-go/falcon/internal/sim"
	"github.com/falcon-vm/falcon-go/propolis/server"
)

// A program that imports falcon is also the programs that falcon starts: it
// runs itself again under one of these names.
const (
	// serverName runs the Propolis server of a node.
	serverName = "falcon-propolis-server"
	// starterName becomes the program given as its arguments.
	starterName = "falcon-start"
	// simName serves the nodes of a topology on a simulated host.
	simName = "falcon-sim"
	// reaperName destroys a topology when the program that it ends with has
	// gone.
	reaperName = "falcon-reaper"
	// agentName is the agent inside of a guest whose image was built where
	// there was no Go toolchain.
	agentName = "falcon-agent"
)

// init is the one place below main that may end the process: under one of the
// names above it is not the user's program, whose main must not run. It being
// an init saves every test and program from a call at its start that would be
// easily forgotten, and whose absence would start the program in a loop.
func init() {
	var status int
	switch filepath.Base(os.Args[0]) {
	case serverName:
		status = runServer(os.Args[1:])
	case simName:
		status = runSim()
	case starterName:
		status = runStarter(os.Args[1:])
	case agentName:
		status = runAgent(os.Args[1:])
	case reaperName:
		status = runReaper(os.Args[1:])
	default:
		return
	}
	os.Exit(status)
}

func runServer(args []string) int {
	if err := process.WaitGate(); err != nil {
		return failed(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return server.Main(ctx, args, os.Stdout, os.Stderr)
}

func runSim() int {
	if err := process.WaitGate(); err != nil {
		return failed(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// A world is short-lived, and small beside what it stands for.
	debug.SetGCPercent(400)
	if err := sim.Run(ctx, os.NewFile(sim.ReadyFD, "ready")); err != nil {
		return failed(err)
	}
	return 0
}

func runStarter(args []string) int {
	if err := process.WaitGate(); err != nil {
		return failed(err)
	}
	if len(args) == 0 {
		return failed(fmt.Errorf("%s: nothing to start", starterName))
	}
	return failed(syscall.Exec(args[0], args, os.Environ()))
}

// reaperDeadline bounds the destruction of a topology that lost its program.
const reaperDeadline = 2 * time.Minute

// runReaper waits for the end of its input, which the program holds open, and
// destroys the topology in the folder if it is still the program's.
func runReaper(args []string) int {
	if len(args) != 2 {
		return failed(fmt.Errorf("%s: want a folder and a lease", reaperName))
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return failed(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), reaperDeadline)
	defer cancel()
	if _, err := destroyFolder(ctx, args[0], args[1], nil); err != nil {
		return failed(err)
	}
	return 0
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}
