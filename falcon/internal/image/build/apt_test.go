package build

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
)

func TestSourcesAreDebiansOwnForTheWantedRelease(t *testing.T) {
	const targets = `http://site/debian bookworm main
http://site/debian bookworm main
http://site/debian bookworm contrib
http://site/debian bookworm-updates main
http://site/security bookworm-security main
http://other/repo stable main
http://other/repo bookwormish main
`
	strip := func(lines []string) (plain []string) {
		for _, l := range lines {
			f := strings.Fields(l)
			plain = append(plain, strings.Join(f[len(f)-3:], " "))
		}
		return plain
	}
	for host, want := range map[string][]string{
		"bookworm": {"http://site/debian bookworm main", "http://site/debian bookworm-updates main", "http://site/security bookworm-security main"},
		"trixie":   nil,
	} {
		if diff := cmp.Diff(want, strip(sourcesOf(targets, host, "bookworm", mainComponent))); diff != "" {
			t.Errorf("on %s: %s", host, diff)
		}
	}
	newer := strip(sourcesOf("http://site/debian trixie-updates main\n", "trixie", "bookworm", mainComponent))
	if diff := cmp.Diff([]string{"http://site/debian bookworm-updates main"}, newer); diff != "" {
		t.Error(diff)
	}
}

func TestAptStatusBecomesProgress(t *testing.T) {
	var got []int64
	s := &aptStatus{what: "downloading", progress: func(p image.Step) {
		if p.What != "downloading" || p.Total != 100 || p.Bytes {
			t.Errorf("step %+v", p)
		}
		got = append(got, p.Done)
	}}
	for _, chunk := range []string{"dlstatus:1:20.53:Retr", "ieving file 1 of 5\npmstatus:x:9:y\ndlstatus:1:", "99.9:x: y\nrubbish\ndlstatus:1:x:y\n"} {
		if n, err := s.Write([]byte(chunk)); n != len(chunk) || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
	}
	if diff := cmp.Diff([]int64{20, 99}, got); diff != "" {
		t.Error(diff)
	}
}

func TestRecipesAreSortedAndHintsNameThem(t *testing.T) {
	all := Recipes()
	for i := 1; i < len(all); i++ {
		if all[i-1].Name >= all[i].Name {
			t.Errorf("%s stands before %s: Build would not find it", all[i-1].Name, all[i].Name)
		}
	}
	if hint := Hint("micro"); !strings.Contains(hint, "falcon image build micro") {
		t.Errorf("Hint(micro) = %q", hint)
	}
	if hint := Hint("plan9"); !strings.Contains(hint, "falcon image import FILE plan9") {
		t.Errorf("Hint(plan9) = %q", hint)
	}
}
