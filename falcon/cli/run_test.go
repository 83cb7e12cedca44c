package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/go-multierror"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/falcon-vm/falcon-go/falcon"
)

func TestWrongCommandLinesSayWhatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		args string
		want string // on standard error
	}{
		{"lanch", `unknown command "lanch" (did you mean launch?)`},
		{"zzzzzz", `unknown command "zzzzzz"`},
		{"hyperst", `command "hyperst" is ambiguous: hyperstart, hyperstop`},
		{"--frobnicate info", "unknown flag: --frobnicate"},
		{"info --frobnicate", "unknown flag: --frobnicate"},
		{"info violin", `info takes no arguments, and has "violin"`},
		{"--nodes many info", `invalid argument "many"`},
		{"-n 0 info", "a ring has at least 1 node"},
		{"exec", "want ring exec [flags] NODE COMMAND…"},
		{"exec violin", "want ring exec [flags] NODE COMMAND…"},
		{"exec vilin ls", `ring has no node "vilin" (did you mean violin?)`},
		{"exec trombone ls", `ring has no node "trombone": its nodes are violin, piano`},
		{"exec --timeout 0s violin ls", "--timeout 0s is not a time to wait"},
		{"exec --timeout soon violin ls", `invalid argument "soon"`},
		{"launch --timeout -1s", "--timeout -1s is not a time to wait"},
		{"serial", "want ring serial NODE"},
		{"serial pianno", `(did you mean piano?)`},
		{"logs", "want ring logs NODE"},
		{"snapshot violin", "want ring snapshot NODE NAME"},
		{"snapshot a b c", "want ring snapshot NODE NAME"},
		{"hyperstop", "hyperstop which node? Name some, or give --all"},
		{"hyperstart --all violin", "--all and names of nodes exclude each other"},
		{"reboot violin pino", `(did you mean piano?)`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			var p testProgram
			got := p.run(t, strings.Fields(tt.args)...)
			status := 2
			if strings.HasPrefix(tt.args, "exec") { // 2 is for the guest's command to say
				status = 125
			}
			if got.status != status || !strings.Contains(got.stderr, tt.want) || !strings.Contains(got.stderr, "--help") {
				t.Errorf("status %d, stderr %q; want %d and %q with where help is", got.status, got.stderr, status, tt.want)
			}
			if got.stdout != "" || len(p.lab.calls) > 0 {
				t.Errorf("printed %q and called %v", got.stdout, p.lab.calls)
			}
		})
	}
}

func TestFailuresEndWith1AndAreSaidOnce(t *testing.T) {
	for _, args := range []string{
		"launch", "destroy", "netcreate", "netdestroy", "info", "preflight", "snapshot violin base",
		"reboot violin", "hyperstop violin", "hyperstart violin",
		"launch --json", "destroy --json", "info --json", "hyperstop --json violin",
	} {
		t.Run(args, func(t *testing.T) {
			p := testProgram{lab: fakeLab{err: errors.New("the moon is in the way")}}
			got := p.run(t, strings.Fields(args)...)
			if want := "ring: the moon is in the way\n"; got.status != 1 || got.stderr != want {
				t.Errorf("status %d, stderr %q; want 1, %q", got.status, got.stderr, want)
			}
		})
	}
}

func TestMistakesOfTheDeclarationComeBackFromEveryCommand(t *testing.T) {
	want := "ring: 6 problems:\n  - node name \"9lives\" is not a letter"
	for _, args := range []string{"launch", "preflight", "info", "exec violin ls", "serial violin", "reboot violin",
		"hyperstart violin", "netcreate", "snapshot violin base", "logs violin"} {
		var p testProgram
		got := p.run(t, append([]string{"--image="}, strings.Fields(args)...)...)
		status := 1
		if strings.HasPrefix(args, "exec") {
			status = 125
		}
		if got.status != status || !strings.HasPrefix(got.stderr, want) || len(p.lab.calls) > 0 {
			t.Errorf("%s: status %d, calls %v, %q; want %d, none, %q", args, got.status, p.lab.calls, got.stderr, status, want)
		}
	}
	for _, args := range []string{"destroy", "netdestroy", "hyperstop violin"} {
		var p testProgram
		if got := p.run(t, append([]string{"--image="}, strings.Fields(args)...)...); got.status != 0 {
			t.Errorf("%s: %+v, want it to work all the same", args, got)
		}
	}
}

func TestAnInterruptedCommandEndsWith130(t *testing.T) {
	signal := errors.New("interrupt signal received")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(signal)
	for _, args := range []string{"launch", "exec violin ls"} {
		for _, err := range []error{context.Canceled, signal} {
			p := testProgram{lab: fakeLab{err: fmt.Errorf("working: %w", err)}}
			if got := p.runContext(t, ctx, strings.Fields(args)...); got.status != 130 {
				t.Errorf("%s, %v: status %d, want 130", args, err, got.status)
			}
		}
	}
	p := testProgram{lab: fakeLab{err: errors.New("no memory")}}
	if got := p.runContext(t, ctx, "netcreate"); got.status != 1 {
		t.Errorf("a failure beside the interrupt has status %d, want 1", got.status)
	}
}

func TestListsOfErrorsArePrintedAsOneList(t *testing.T) {
	one, two := errors.New("one\nmore of it"), errors.New("two")
	list := "2 problems:\n  - one\n    more of it\n  - two"
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"single", two, "two"},
		{"joined", errors.Join(one, two), list},
		{"joined single", errors.Join(two), "two"},
		{"multierror", multierror.Append(nil, one, two), list},
		{"nested", errors.Join(errors.Join(one), multierror.Append(nil, two)), list},
		{"two causes in one sentence", fmt.Errorf("%w because of %w", two, two), "two because of two"},
		{"with a status", &ExitError{7, errors.Join(one, two)}, list},
		{"status alone", &ExitError{Status: 7}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := describe(tt.err); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTheProgramsOwnCommandsSeeTheTopologyAndChooseTheirStatus(t *testing.T) {
	p := testProgram{nodes: 3}
	root := p.app(t).root
	seen := 0
	root.AddCommand(&cobra.Command{Use: "count", RunE: func(cmd *cobra.Command, _ []string) error {
		seen = len(Topology(cmd).Nodes())
		return &ExitError{Status: 9}
	}})
	if status := Execute(t.Context(), root, []string{"-n", "4", "cou"}); status != 9 || seen != 4 {
		t.Errorf("status %d with %d nodes, want 9 with 4", status, seen)
	}
}

func TestATopologyWithoutFlagsHasACommandLine(t *testing.T) {
	topo := falcon.New("solo")
	topo.Dir = "elsewhere"
	root := Command(topo)
	if root.Name() != "solo" {
		t.Errorf("the program is called %q", root.Name())
	}
	if got := root.PersistentFlags().Lookup("falcon-dir").DefValue; got != "elsewhere" {
		t.Errorf("--falcon-dir is %q without being given, want the topology's own", got)
	}
	root.AddCommand(&cobra.Command{Use: "see", RunE: func(cmd *cobra.Command, _ []string) error {
		if got := Topology(cmd); got != topo || !topo.Persistent || topo.Dir != "there" {
			t.Errorf("the command has %p (%+v), want %p, persistent, in there", got, got, topo)
		}
		return nil
	}})
	if status := Execute(t.Context(), root, []string{"-f", "there", "see"}); status != 0 {
		t.Errorf("status %d", status)
	}
}

func TestFlagsOfATopologyMustNotHideFalcons(t *testing.T) {
	for name, declare := range map[string]func(*pflag.FlagSet){
		"--json": func(f *pflag.FlagSet) { f.Bool("json", false, "") },
		"--help": func(f *pflag.FlagSet) { f.Bool("help", false, "") },
		"-f":     func(f *pflag.FlagSet) { f.StringP("file", "f", "", "") },
		"-h":     func(f *pflag.FlagSet) { f.StringP("host", "h", "", "") },
	} {
		t.Run(name, func(t *testing.T) {
			root := Program{Name: "x", Flags: declare, Declare: func() (*falcon.Topology, error) {
				t.Error("declared all the same")
				return falcon.New("x"), nil
			}}.Command()
			var stderr strings.Builder
			root.SetErr(&stderr)
			status := Execute(t.Context(), root, []string{"info"})
			if want := "the program's flag " + name + " is also one of falcon's"; status != 1 || !strings.Contains(stderr.String(), want) {
				t.Errorf("status %d, %q; want 1, %q", status, stderr.String(), want)
			}
		})
	}
}

func TestFALCON_LOGIsALevel(t *testing.T) {
	t.Setenv("FALCON_LOG", "loud")
	var p testProgram
	if got := p.run(t, "info"); got.status != 1 || !strings.Contains(got.stderr, "FALCON_LOG=loud: want debug, info, warn or error") {
		t.Errorf("status %d, %q", got.status, got.stderr)
	}
}
