// Npuadm sets and shows the tables of a node's switch ASIC from within its
// guest, over the serial port that is the ASIC's management channel.
//
// Its verbs are those of scadm, which does the same for an ASIC that runs
// sidecar-lite, and some for ASICs with any program: tables, add, remove,
// defaults, arrays, counters and others. Build it for a guest with
// CGO_ENABLED=0, which makes a file that needs no library.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/admin"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := admin.Command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "npuadm:", err)
		return 1
	}
	return 0
}
