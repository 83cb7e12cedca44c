package guest

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/falcon-vm/falcon-go/internal/agent"
)

// What the Go runtime may use. Garbage is not worth its collection until there
// is some: a call leaves a few kilobytes.
const (
	memoryLimit = 24 << 20
	gcPercent   = 400
)

// Main runs falcon-agent with the arguments after the program's name, and
// returns its exit status when the port is gone. With "install" it puts itself
// into the system that it runs in, or the one below a folder, and ends.
func Main(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "install" {
		return runInstall(args[1:], stdout, stderr)
	}
	if len(args) == 2 && args[0] == thawWord {
		return thawLater(args[1], stderr)
	}
	flags := flag.NewFlagSet("falcon-agent", flag.ContinueOnError)
	flags.SetOutput(stderr)
	path := flags.String("port", "", "device of the port (default: the virtio-serial port "+agent.Port+")")
	version := flags.Bool("version", false, "print the version")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "falcon-agent: takes no arguments but \"install\", and has %q\n", flags.Args())
		return 2
	}
	if *version {
		fmt.Fprintln(stdout, "falcon-agent "+agent.Version)
		return 0
	}
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
	// A signal that is handled here is back at its default in the commands, also
	// where who started the agent has it ignored, as shells do in the background.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP)
	port, err := OpenPort(*path)
	if err != nil {
		fmt.Fprintln(stderr, "falcon-agent:", err)
		return 1
	}
	defer port.Close()
	if err := Serve(port); err != nil {
		fmt.Fprintln(stderr, "falcon-agent:", err)
		return 1
	}
	return 0
}

func runInstall(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("falcon-agent install", flag.ContinueOnError)
	flags.SetOutput(stderr)
	root := flags.String("root", "/", "root folder of the system")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "falcon-agent install: takes no arguments, and has %q\n", flags.Args())
		return 2
	}
	init, err := install(*root)
	if err != nil {
		fmt.Fprintln(stderr, "falcon-agent:", err)
		return 1
	}
	fmt.Fprintf(stdout, "%s is installed, and started at boot by %s\n", Program, init)
	return 0
}
