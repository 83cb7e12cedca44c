// Falcon-agent serves falcon's calls inside a Linux guest, over the virtio-serial
// port dev.falcon.agent.0. It needs nothing of the guest but its kernel.
package main

import (
	"os"

	"github.com/falcon-vm/falcon-go/internal/agent/guest"
)

func main() { os.Exit(guest.Main(os.Args[1:], os.Stdout, os.Stderr)) }
