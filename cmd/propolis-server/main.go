// Propolis-server serves the Propolis API on Linux, with QEMU as the machine.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/falcon-vm/falcon-go/propolis/server"
)

func main() { os.Exit(run()) }

func run() int {
	if err := server.LowerSelf(); err != nil {
		fmt.Fprintln(os.Stderr, "propolis-server: giving up privileges:", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return server.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
}
