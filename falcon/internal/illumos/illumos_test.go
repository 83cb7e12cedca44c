package illumos

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// answers is a Runner that says what it is told to.
type answers struct {
	mu   sync.Mutex
	say  func(c Command) (stdout, stderr string)
	seen []string
}

func (a *answers) Run(_ context.Context, c Command) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, c.String())
	out, said := a.say(c)
	if said != "" {
		return out, &CommandError{Command: c, Said: said, Err: errors.New("exit status 1")}
	}
	return out, nil
}

func TestNamesOfLinks(t *testing.T) {
	long := strings.Repeat("n", 32)
	for _, tt := range []struct{ full, node, vnic, simnet string }{
		{"duo_violin_vn_vnic0", "violin", "duo_violin_vn_vnic0", "duo_violin_vn_sim0"},
		{"duo_violin_sn_vnic12", "violin", "duo_violin_sn_vnic12", "duo_violin_sn_sim12"},
		{"a_testbed_of_ours_violin_vn_vnic0", "violin", "violin_2c18dbbe36_vn_vnic0", "violin_2c18dbbe36_vn_sim0"},
		{"t_" + long + "_vn_vnic200", long, "nnnnnnnnn_6a9c939ec9_vn_vnic200", "nnnnnnnnn_6a9c939ec9_vn_sim200"},
	} {
		vnic := VNICName(tt.full, tt.node)
		if simnet := SimnetName(vnic); vnic != tt.vnic || simnet != tt.simnet {
			t.Errorf("%s: %s and %s, want %s and %s", tt.full, vnic, simnet, tt.vnic, tt.simnet)
		}
	}
}

func TestEveryNameIsOneThatIllumosTakes(t *testing.T) {
	seen := make(map[string]string)
	for _, topology := range []string{"d", strings.Repeat("t", 11), strings.Repeat("t", 32)} {
		for _, node := range []string{"v", "n_1", strings.Repeat("n", 31) + "1", strings.Repeat("n", 31) + "2"} {
			for _, kind := range []string{"vn", "sn", "sm"} {
				for _, index := range []string{"0", "9", "10", "12345"} {
					full := topology + "_" + node + "_" + kind + "_vnic" + index
					vnic := VNICName(full, node)
					for _, name := range []string{vnic, SimnetName(vnic)} {
						if err := ValidLinkName(name); err != nil {
							t.Errorf("%s: %v", full, err)
						}
						if other, taken := seen[name]; taken {
							t.Errorf("%s is the name of %s and %s", name, other, full)
						}
						seen[name] = full
					}
				}
			}
		}
	}
}

func TestNamesThatIllumosDoesNotTake(t *testing.T) {
	for _, name := range []string{"", "0net0", "net", "net-0", "n et0", strings.Repeat("n", 31) + "0"} {
		if ValidLinkName(name) == nil {
			t.Errorf("%q is taken for a link's name", name)
		}
	}
}

var duo = Pair{A: End{VNIC: "duo_a_vn_vnic0", MAC: "02:00:00:00:00:01"}, B: End{VNIC: "duo_b_vn_vnic0", MAC: "02:00:00:00:00:02"}}

func lines(cmds []Command) string {
	var b strings.Builder
	for _, c := range cmds {
		b.WriteString(c.String() + "\n")
	}
	return b.String()
}

func TestCommandsOfAPair(t *testing.T) {
	withMTU := duo
	withMTU.MTU = 1500
	whole := Links{
		"duo_a_vn_sim0": {Class: "simnet", MTU: 9000, Peer: "duo_b_vn_sim0"}, "duo_b_vn_sim0": {Class: "simnet", MTU: 9000, Peer: "duo_a_vn_sim0"},
		"duo_a_vn_vnic0": {Class: "vnic", Over: "duo_a_vn_sim0"}, "duo_b_vn_vnic0": {Class: "vnic", Over: "duo_b_vn_sim0"},
	}
	for _, tt := range []struct {
		name string
		pair Pair
		have Links
		want string
	}{
		{"nothing stands", duo, nil, `dladm create-simnet -t duo_a_vn_sim0
dladm create-simnet -t duo_b_vn_sim0
dladm modify-simnet -t -p duo_b_vn_sim0 duo_a_vn_sim0
dladm create-vnic -t -l duo_a_vn_sim0 -m 02:00:00:00:00:01 duo_a_vn_vnic0
dladm set-linkprop -t -p promisc-filtered=off duo_a_vn_vnic0
dladm create-vnic -t -l duo_b_vn_sim0 -m 02:00:00:00:00:02 duo_b_vn_vnic0
dladm set-linkprop -t -p promisc-filtered=off duo_b_vn_vnic0
`},
		{"the MTU comes before the VNICs", withMTU, Links{"duo_a_vn_sim0": {Class: "simnet", MTU: 1500}}, `dladm create-simnet -t duo_b_vn_sim0
dladm set-linkprop -t -p mtu=1500 duo_b_vn_sim0
dladm modify-simnet -t -p duo_b_vn_sim0 duo_a_vn_sim0
dladm create-vnic -t -l duo_a_vn_sim0 -m 02:00:00:00:00:01 duo_a_vn_vnic0
dladm set-linkprop -t -p promisc-filtered=off duo_a_vn_vnic0
dladm create-vnic -t -l duo_b_vn_sim0 -m 02:00:00:00:00:02 duo_b_vn_vnic0
dladm set-linkprop -t -p promisc-filtered=off duo_b_vn_vnic0
`},
		{"all stands", duo, whole, `dladm set-linkprop -t -p promisc-filtered=off duo_a_vn_vnic0
dladm set-linkprop -t -p promisc-filtered=off duo_b_vn_vnic0
`},
	} {
		if diff := cmp.Diff(tt.want, lines(tt.pair.Commands(tt.have))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	removal := RemoveCommands(append(duo.Names(), "gone0"), whole)
	if diff := cmp.Diff("dladm delete-vnic -t duo_a_vn_vnic0\ndladm delete-vnic -t duo_b_vn_vnic0\n", lines(removal[0])); diff != "" {
		t.Errorf("removed first (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff("dladm delete-simnet -t duo_a_vn_sim0\ndladm delete-simnet -t duo_b_vn_sim0\n", lines(removal[1])); diff != "" {
		t.Errorf("removed then (-want +got):\n%s", diff)
	}
}

func TestALinkOfAnotherKindIsNotThePairs(t *testing.T) {
	for name, have := range map[string]Links{
		"an etherstub": {"duo_a_vn_sim0": {Class: "etherstub"}},
		"elsewhere":    {"duo_b_vn_vnic0": {Class: "vnic", Over: "igb0"}},
	} {
		var taken *NameError
		if err := duo.Check(have); !errors.As(err, &taken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLinksAreReadFromParsableOutput(t *testing.T) {
	a := &answers{say: func(c Command) (string, string) {
		if c[1] == "show-simnet" {
			return "a_sim0:b_sim0\nb_sim0:\n", ""
		}
		return "igb0:phys:1500:up:--\na_sim0:simnet:9000:up:\nb_sim0:simnet:9000:unknown:\naggr0:aggr:1500:up:igb0 igb1\nodd\\:0:vnic:1500:up:igb0\n", ""
	}}
	got, err := Dladm{Runner: a}.Links(t.Context())
	want := Links{
		"igb0":   {Name: "igb0", Class: "phys", MTU: 1500, State: "up"},
		"a_sim0": {Name: "a_sim0", Class: "simnet", MTU: 9000, State: "up", Peer: "b_sim0"},
		"b_sim0": {Name: "b_sim0", Class: "simnet", MTU: 9000, State: "unknown"},
		"aggr0":  {Name: "aggr0", Class: "aggr", MTU: 1500, State: "up", Over: "igb0 igb1"},
		"odd:0":  {Name: "odd:0", Class: "vnic", MTU: 1500, State: "up", Over: "igb0"},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for name, out := range map[string]string{"too few": "igb0:phys\n", "no number": "igb0:phys:big:up:\n"} {
		a.say = func(Command) (string, string) { return out, "" }
		if got, err := (Dladm{Runner: a}).Links(t.Context()); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestOnlyABusyLinkIsTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		said  string
		tries int
	}{{"dladm: vnic deletion failed: link busy", 3}, {"dladm: create operation failed: Device busy", 3}, {"dladm: operation failed: permission denied", 1}} {
		left := 2
		a := &answers{say: func(Command) (string, string) {
			if left--; left < 0 {
				return "", ""
			}
			return "", tt.said
		}}
		err := Dladm{Runner: a}.Change(t.Context(), Command{"dladm", "x"})
		if len(a.seen) != tt.tries || (err == nil) != (tt.tries == 3) {
			t.Errorf("%s: %d tries, %v", tt.said, len(a.seen), err)
		}
	}
}

func TestWaitingForABusyLinkEndsWithItsContext(t *testing.T) {
	a := &answers{say: func(Command) (string, string) { return "", "dladm: link busy" }}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := (Dladm{Runner: a}).Change(ctx, Command{"dladm", "x"}); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "link busy") {
		t.Errorf("%v", err)
	}
}

func TestTheFirstFailureStopsTheOtherLists(t *testing.T) {
	a := &answers{say: func(c Command) (string, string) {
		if c[0] == "fails" {
			return "", "dladm: creation failed: object already exists"
		}
		time.Sleep(time.Millisecond) // a thousand of them take longer than a failure to get about
		return "", ""
	}}
	lists := [][]Command{{{"fails", "a0"}, {"never", "a0"}}}
	for range atOnce - 1 {
		lists = append(lists, slices.Repeat([]Command{{"goes on"}}, 1000))
	}
	err := Dladm{Runner: a}.Apply(t.Context(), lists)
	if got := Refused(err); !slices.Equal(got, []string{"a0"}) {
		t.Errorf("refused: %q (%v)", got, err)
	}
	if slices.Contains(a.seen, "never a0") || len(a.seen) > 1000 {
		t.Errorf("%d commands after a failure", len(a.seen))
	}
}

func TestDefaultRoute(t *testing.T) {
	const answer = "   route to: default\n destination: default\n    gateway: 192.0.2.1\n  interface: %s\n      flags: <UP,GATEWAY>\n"
	for _, tt := range []struct{ out, said, want, err string }{
		{strings.Replace(answer, "%s", "igb0", 1), "", "igb0", ""},
		{strings.Replace(answer, "%s", "igb0:1", 1), "", "igb0", ""},
		{"", "route: writing to routing socket: No such process", "", ErrNoDefaultRoute.Error()},
		{"default: not in table\n", "default: not in table", "", ErrNoDefaultRoute.Error()},
		{"destination: default\n", "", "", "names no interface"},
		{"", "route: not found", "", "route: not found"},
	} {
		a := &answers{say: func(Command) (string, string) { return tt.out, tt.said }}
		got, err := DefaultRouteLink(t.Context(), a)
		if got != tt.want || (tt.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q %q: %q, %v", tt.out, tt.said, got, err)
		}
	}
}

func TestAVirtualMachineThatIsGoneIsNoError(t *testing.T) {
	for said, ok := range map[string]bool{"": true, "VM:x is not created.": true, "bhyvectl: permission denied": false} {
		a := &answers{say: func(Command) (string, string) { return "", said }}
		if err := DestroyVM(t.Context(), a, "x"); (err == nil) != ok {
			t.Errorf("%q: %v", said, err)
		}
	}
}

func TestCommandsReadAsTheyAreTyped(t *testing.T) {
	for want, c := range map[string]Command{
		"zfs clone -p a/img/b@base a/topo/c": {"zfs", "clone", "-p", "a/img/b@base", "a/topo/c"},
		"p run '[::1]:0' 'it'\\''s' ''":      {"p", "run", "[::1]:0", "it's", ""},
	} {
		if got := c.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestClaimsOfAnEarlierBootHoldNoLonger(t *testing.T) {
	s := Claims{Dir: t.TempDir(), Boot: "one"}
	none := func() (Links, error) { return nil, nil }
	mine := Claim{ID: "a", Topology: "duo", Folder: "/a", Links: []string{"x0", "y0"}}
	if err := s.Add(t.Context(), mine, none); err != nil {
		t.Fatal(err)
	}
	other := Claim{ID: "b", Topology: "duo", Folder: "/b", Links: []string{"y0"}}
	var taken *NameError
	if err := s.Add(t.Context(), other, none); !errors.As(err, &taken) || taken.Name != "y0" || taken.Owner != "topology duo (/a)" {
		t.Errorf("%v", err)
	}
	s.Boot = "two"
	if c, err := s.Get("a"); err != nil || len(c.Links) > 0 {
		t.Errorf("%+v, %v", c, err)
	}
	if err := s.Add(t.Context(), other, none); err != nil {
		t.Error(err)
	}
	if err := s.Drop(t.Context(), "b", []string{"y0"}); err != nil {
		t.Error(err)
	}
	if all, err := s.List(); err != nil || len(all) > 0 {
		t.Errorf("%+v, %v", all, err)
	}
}
