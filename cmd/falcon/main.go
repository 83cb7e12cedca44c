// Falcon looks after a host's base images and labs: it builds and imports images,
// lists and destroys labs without their programs, says what the host can do, and
// writes a program to start from. Labs themselves are programs; see package
// falcon.
package main

import "github.com/falcon-vm/falcon-go/falcon/cli/host"

func main() { host.Main() }
