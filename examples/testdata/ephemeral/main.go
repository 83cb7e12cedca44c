// Ephemeral launches a topology that is not persistent, says so on standard
// output, and then does what its last argument says: "return", "cancel" (its
// context, and wait for the end of its input), or "wait" (for that alone).
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/falcon-vm/falcon-go/falcon"
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir, then string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	topo := falcon.New("ephemeral")
	topo.Dir = dir
	a := topo.Node("a", "micro", 1, falcon.MiB(128)).NoSetup()
	topo.Link(a, topo.Node("b", "micro", 1, falcon.MiB(128)).NoSetup())
	if err := topo.Launch(ctx); err != nil {
		return err
	}
	fmt.Println("up")
	switch then {
	case "return":
		os.Exit(0) // nothing deferred may be needed
	case "cancel":
		cancel()
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
