package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestScriptIsRead(t *testing.T) {
	for text, want := range map[string][]Rule{
		"":                               nil,
		"disk:violin=fail":               {{Step: StepDisk, Target: "violin", Effect: Fail}},
		"login:piano=never":              {{Step: StepLogin, Target: "piano", Effect: Never}},
		"link:violin/0=busy*2":           {{Step: StepLink, Target: "violin/0", Effect: Busy, Times: 2}},
		"boot:n3=1.5s*1":                 {{Step: StepBoot, Target: "n3", Effect: Delay, Delay: 1500 * time.Millisecond, Times: 1}},
		"die:n2@set-up":                  {{Step: StepSetUp, Target: "n2", Effect: Die, Times: 1}},
		"image:debian-12=missing":        {{Step: StepImage, Target: "debian-12", Effect: Missing}},
		"start:*=fail,\n exec:a=never ,": {{Step: StepStart, Target: "*", Effect: Fail}, {Step: StepExec, Target: "a", Effect: Never}},
		"stop:a=10ms stop:b=never":       {{Step: StepStop, Target: "a", Effect: Delay, Delay: 10 * time.Millisecond}, {Step: StepStop, Target: "b", Effect: Never}},
	} {
		got, err := ParseScript(text)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: error %v (-want +got):\n%s", text, err, diff)
		}
	}
}

func TestScriptThatIsNotUnderstoodIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"violin":                "want STEP:TARGET=EFFECT",
		"disc:violin=fail":      `step "disc"`,
		"disk:violin":           "want disk:TARGET=EFFECT",
		"disk:violin=busy":      "step disk can have fail, a duration",
		"disk:=fail":            `target ""`,
		"disk:a/0=fail":         `target "a/0"`,
		"link:violin=fail":      "want NODE/INDEX",
		"link:violin/x=fail":    "want NODE/INDEX",
		"link:violin/0=busy*0":  `"0" times`,
		"link:violin/0=busy*-1": `"-1" times`,
		"boot:a=-1s":            `effect "-1s"`,
		"boot:a=0s":             `effect "0s"`,
		"die:a":                 "want die:NODE@STAGE",
		"die:a@exec":            "start, boot, login, set-up",
		"die:a@boot=fail":       "want die:NODE@STAGE",
		"image:a=fail":          "step image can have missing",
		"disk:a=fail disk:b":    `rule "disk:b"`,
	} {
		_, err := ParseScript(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want it to say %q", text, err, want)
		}
	}
}

func TestScriptCountsForEachThing(t *testing.T) {
	rules, err := ParseScript("link:*=busy*2,link:a/0=fail")
	if err != nil {
		t.Fatal(err)
	}
	s := NewScript(rules)
	var got []string
	for _, end := range []string{"a/0", "b/0", "a/0", "a/0", "b/0", "b/0"} {
		got = append(got, s.Next(StepLink, end).Effect)
	}
	if diff := cmp.Diff([]string{Busy, Busy, Busy, Fail, Busy, ""}, got); diff != "" {
		t.Errorf("effects (-want +got):\n%s", diff)
	}
}
