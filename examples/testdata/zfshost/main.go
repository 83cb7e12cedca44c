// Zfshost is a topology of one machine that can be a host of falcon itself: it
// has OpenZFS and QEMU, a disk of its own for a pool, and a folder of the host
// with what is to be run in it.
package main

import (
	"github.com/spf13/pflag"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/falcon/cli"
	"github.com/falcon-vm/falcon-go/propolis"
)

func main() {
	var pool, cargo string
	cli.Program{
		Name:  "zfshost",
		Short: "A machine with OpenZFS",
		Flags: func(f *pflag.FlagSet) {
			f.StringVar(&pool, "pool", "", "a raw file, the disk of the pool to be")
			f.StringVar(&cargo, "cargo", "", "a folder that the machine sees as /opt/cargo")
		},
		Declare: func() (*falcon.Topology, error) {
			topo := falcon.New("zfshost")
			// One core: with two, OpenZFS was once seen to spin in the kernel
			// for ever (zpool create).
			host := topo.Node("host", "debian-12-zfs", 1, falcon.GiB(2))
			host.Mount(cargo, "/opt/cargo")
			host.Component("pool", propolis.VirtioDisk{BackendID: "pool_backing", PCIPath: propolis.PCIPath{Device: 24}})
			host.Component("pool_backing", propolis.FileStorageBackend{Path: pool, BlockSize: 512})
			return topo, nil
		},
	}.Main()
}
