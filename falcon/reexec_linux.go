package falcon

import (
	"os"

	"github.com/falcon-vm/falcon-go/internal/agent/guest"
)

func runAgent(args []string) int { return guest.Main(args, os.Stdout, os.Stderr) }
