//go:build linux

package examples_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/falcon-vm/falcon-go/falcon"
)

// TestRefusedBeforeAnythingIsMade launches what cannot be, and looks that no
// launch has made as much as its folder.
func TestRefusedBeforeAnythingIsMade(t *testing.T) {
	s := newSite(t)
	host := addVeth(t, "198.51.100.1/24")
	file := filepath.Join(s.mkdir("files"), "file")
	check(t, os.WriteFile(file, nil, 0o644))
	most := totalMemory(t)
	for i, tt := range []struct {
		name  string
		flags []string
		words []string
	}{
		{"unknown image", []string{"--node", "a:128:nosuch"}, []string{"nosuch", "falcon image"}},
		{"mount of nothing", []string{"--node", "a", "--mount", "a:/no/such/folder:/mnt"}, []string{"node a", "/no/such/folder"}},
		{"mount of a file", []string{"--node", "a", "--mount", "a:" + file + ":/mnt"}, []string{"node a", file, "not a folder"}},
		{"missing interface", []string{"--node", "a", "--ext", "a:nosuch0"}, []string{"node a", "nosuch0"}},
		{"interface exclusive and shared", []string{"--node", "a,b", "--ext", "a:" + host, "--exclusive", "b:" + host}, []string{host, "exclusive"}},
		{"too much memory", []string{"--node", fmt.Sprintf("a:%d,b:%[1]d", most)}, []string{"not enough memory", falcon.MiB(2 * (most + 64)).String(), "free"}},
		{"too little memory", []string{"--node", "a:16"}, []string{"node a", "16 MiB", "32 MiB"}},
		{"duplicate name", []string{"--node", "a,a"}, []string{"node a", "twice"}},
		{"invalid name", []string{"--node", "a-b"}, []string{`"a-b"`}},
		{"long name", []string{"--node", strings.Repeat("a", 200)}, []string{"200"}},
		{"invalid topology", []string{"--name", "9lives", "--node", "a"}, []string{`"9lives"`}},
		{"disk smaller than its image", []string{"--node", "a", "--disk", "a:1"}, []string{"node a", "1 MiB", "1 GiB"}},
		{"malformed MAC", []string{"--node", "a,b", "--link", "a:b:02-00:02-00-00-00-00-01"}, []string{"node a", "02-00"}},
		{"MAC used twice", []string{"--node", "a,b", "--link", "a:b:02-00-00-00-00-01:02-00-00-00-00-01"}, []string{"02:00:00:00:00:01"}},
		{"multicast MAC", []string{"--node", "a,b", "--link", "a:b:03-00-00-00-00-01:02-00-00-00-00-01"}, []string{"node a", "multicast"}},
		{"several mistakes", []string{"--node", "a:16,9b"}, []string{"16 MiB", `"9b"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := s.lab(fmt.Sprint("lab", i), "any", tt.flags...).in(t)
			l.refuse(l.launchArgs(), tt.words...)
			l.gone()
			l.clean("after a refusal")
		})
	}
}

// totalMemory is the host's, in MiB.
func totalMemory(t *testing.T) uint64 {
	t.Helper()
	var info unix.Sysinfo_t
	check(t, unix.Sysinfo(&info))
	return uint64(info.Totalram) * uint64(info.Unit) >> 20
}

func TestInterfaceOfTheDefaultRouteIsNotGivenAway(t *testing.T) {
	s := newSite(t)
	ns := newNamespace(t, fmt.Sprintf("fe%d", newNumber(t)))
	h, err := netlink.NewHandleAt(ns)
	check(t, err)
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "uplink"
	check(t, h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer"}))
	uplink, err := h.LinkByName("uplink")
	check(t, err)
	check(t, h.LinkSetUp(uplink))
	_, all, err := net.ParseCIDR("0.0.0.0/0")
	check(t, err)
	check(t, h.RouteAdd(&netlink.Route{LinkIndex: uplink.Attrs().Index, Dst: all, Scope: netlink.SCOPE_LINK}))

	l := s.lab("lab", "any", "--node", "a", "--exclusive", "a:uplink")
	inNamespace(t, ns, func() { l.refuse(l.launchArgs(), "uplink", "default route") })
	l.gone()
}

func TestFolderOfAnotherTopologyIsRefused(t *testing.T) {
	s := newSite(t)
	l := s.lab("lab", "any", "--name", "one", "--node", "a,b", "--link", "a:b")
	l.must(append(l.flags, "netcreate")...)
	other := s.lab("other", "ring", "-n", "2")
	before, err := os.ReadFile(l.state("topology.json"))
	check(t, err)
	for _, args := range [][]string{{"launch"}, {"netcreate"}, {"destroy"}, {"info"}} {
		other.refuse(append(args, "-f", l.state("")), "one", "ring", l.state(""))
	}
	after, err := os.ReadFile(l.state("topology.json"))
	if err != nil || string(before) != string(after) {
		t.Errorf("the record was\n%s\nand is (%v)\n%s", before, err, after)
	}
	l.destroy()
}

// TestFullDiskUndoesTheLaunch launches with nothing to a few pages of the disk
// free, so that each of the first things that are written there fails once.
func TestFullDiskUndoesTheLaunch(t *testing.T) {
	s := newSite(t)
	s.ownHome("home")
	for _, where := range []string{"home", "state"} {
		for pages := range 5 {
			t.Run(fmt.Sprintf("%s with %d pages free", where, pages), func(t *testing.T) {
				l := s.lab(fmt.Sprint(where, pages), "any", "--node", "a,b", "--link", "a:b").in(t)
				l.cold = true // making a template takes long, and its failure is no launch's
				full := map[string]string{"home": s.home, "state": l.dir}[where]
				fill(t, full, pages)
				if where == "home" {
					l.linkImage()
				}
				l.refuse(l.launchArgs(), "no space left")
				l.gone()
				check(t, syscall.Unmount(full, 0))
				l.clean("after a launch on a full disk")
			})
		}
	}
}

// fill mounts a small file system on a folder, with a number of pages free.
func fill(t *testing.T, dir string, pages int) {
	t.Helper()
	check(t, syscall.Mount("none", dir, "tmpfs", 0, "size=256k,mode=755"))
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	ballast := make([]byte, 256<<10-pages*os.Getpagesize())
	check(t, os.WriteFile(filepath.Join(dir, "ballast"), ballast, 0o600))
}
