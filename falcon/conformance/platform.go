// Package conformance holds the checks that every platform must pass on which
// falcon runs topologies: what a launch makes, repeats and takes back, in which
// order a guest finds its interfaces, what becomes of commands, disks and
// snapshots, and that nothing is left behind whenever somebody pulls the plug.
//
// The checks work from outside, the way a user does: they run a topology program
// and the host tool, and judge by what these print and leave. The tests of this
// package run them on the simulated host, on the machine's own system and, as
// root on Linux, as an ordinary user too. On a machine with a platform that our
// continuous integration does not have, one command runs them:
//
//	go test -count=1 -v -run TestNative ./falcon/conformance
package conformance

import (
	"syscall"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon"
)

// Platform is what is checked, and with what.
type Platform struct {
	// Any is the program of examples/testdata/any, Falcon the host tool.
	Any, Falcon string
	// Env is added to the environment of both.
	Env []string
	// Slow is added to that where a check wants to catch a launch in the act;
	// empty where guests take their time anyway.
	Slow []string
	// Image is the base image of the nodes: a Linux with sh, ip and ping.
	Image string
	// ImageDir is the image's folder, to be seen from the homes of the
	// checks; empty where every home has the image.
	ImageDir string
	// Launch is added to each launch.
	Launch []string
	// User runs the programs; nil for the user who runs the checks.
	User *syscall.Credential
	// OneOfAName says that two topologies of one name cannot stand on the
	// host at once.
	OneOfAName bool
	// Agent says that nodes have a guest agent.
	Agent bool
	// Without are the stages that nodes of this platform do not pass through.
	Without []falcon.Stage
	// Login bounds the wait for a guest's login, Command each command.
	Login, Command time.Duration
	// Stands lists what topologies have on the host outside of folders, such
	// as network namespaces.
	Stands func() ([]string, error)
}

// Run runs all checks on a platform, each as a subtest. They share a home of
// falcon's, and with it the templates of their nodes.
func Run(t *testing.T, p Platform) {
	home := newHome(t, p)
	for _, c := range []struct {
		name  string
		check func(*site)
	}{
		{"Launch", checkLaunch},
		{"Ensure", checkEnsure},
		{"OrderOfInterfaces", checkOrderOfInterfaces},
		{"ExecStatus", checkExecStatus},
		{"Agent", checkAgent},
		{"StopAndStart", checkStopAndStart},
		{"SnapshotOfASnapshot", checkSnapshotOfASnapshot},
		{"NameCollisions", checkNameCollisions},
		{"MovedCopiedAndLostFolders", checkFolders},
		{"CancelInEveryStage", checkCancelInEveryStage},
		{"DestroyAfterAKillAtEachEntry", checkDestroyAfterAKill},
	} {
		t.Run(c.name, func(t *testing.T) { c.check(newSite(t, p, home)) })
	}
}
