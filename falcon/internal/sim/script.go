package sim

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Rule is what a script says of one step of one thing.
type Rule struct {
	// Step is what it is about, one of the keys of [steps].
	Step string `json:"step"`
	// Target is the image, node or link; "*" is every one.
	Target string `json:"target"`
	// Effect is what happens, one of the step's effects, or a delay.
	Effect string        `json:"effect"`
	Delay  time.Duration `json:"delay,omitempty"`
	// Times is how often; 0 is always.
	Times int `json:"times,omitempty"`
}

// The effects of rules. What [Die] does depends on the stage, which is the
// step.
const (
	Fail    = "fail"
	Busy    = "busy"
	Never   = "never"
	Missing = "missing"
	Delay   = "delay"
	Die     = "die"
)

// The steps of rules.
const (
	StepImage = "image"
	StepDisk  = "disk"
	StepLink  = "link"
	StepStart = "start"
	StepBoot  = "boot"
	StepLogin = "login"
	StepSetUp = "set-up"
	StepExec  = "exec"
	StepStop  = "stop"
)

// steps are the steps of a script with the effects that they can have. Every
// node's steps from start to set-up can also be where it dies.
var steps = map[string][]string{
	StepImage: {Missing},
	StepDisk:  {Fail, Delay},
	StepLink:  {Fail, Busy, Delay},
	StepStart: {Fail, Delay},
	StepBoot:  {Fail, Never, Delay},
	StepLogin: {Fail, Never, Delay},
	StepSetUp: {Never, Delay},
	StepExec:  {Fail, Never, Delay},
	StepStop:  {Never, Delay},
}

// dying are the stages at which a machine can die.
var dying = []string{StepStart, StepBoot, StepLogin, StepSetUp}

// ParseScript reads a script. Its form is documented at falcon.Topology.Sim.
func ParseScript(text string) ([]Rule, error) {
	var rules []Rule
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\n,", r) }) {
		r, err := parseRule(word)
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", word, err)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

var (
	nodeRE  = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_]*|\*)$`)
	linkRE  = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_]*/[0-9]+|\*)$`)
	imageRE = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9._-]*|\*)$`)
)

func parseRule(word string) (Rule, error) {
	step, rest, ok := strings.Cut(word, ":")
	if !ok {
		return Rule{}, errors.New("want STEP:TARGET=EFFECT or die:NODE@STAGE")
	}
	if step == Die {
		return parseDeath(rest)
	}
	effects, known := steps[step]
	if !known {
		return Rule{}, fmt.Errorf("step %q: want image, disk, link, start, boot, login, set-up, exec, stop or die", step)
	}
	target, effect, ok := strings.Cut(rest, "=")
	if !ok {
		return Rule{}, fmt.Errorf("want %s:TARGET=EFFECT", step)
	}
	r := Rule{Step: step, Target: target}
	if err := r.checkTarget(); err != nil {
		return Rule{}, err
	}
	effect, times, counted := strings.Cut(effect, "*")
	if counted {
		n, err := strconv.ParseUint(times, 10, 16)
		if err != nil || n == 0 {
			return Rule{}, fmt.Errorf("%q times: want a number from 1 on", times)
		}
		r.Times = int(n)
	}
	if d, err := time.ParseDuration(effect); err == nil && d > 0 {
		effect, r.Delay = Delay, d
	}
	if r.Effect = effect; !slices.Contains(effects, effect) {
		return Rule{}, fmt.Errorf("effect %q: step %s can have %s", effect, step, effectNames(effects))
	}
	return r, nil
}

// effectNames lists effects for people, who write a delay as a duration.
func effectNames(effects []string) string {
	return strings.ReplaceAll(strings.Join(effects, ", "), Delay, "a duration such as 2s")
}

func parseDeath(rest string) (Rule, error) {
	node, stage, ok := strings.Cut(rest, "@")
	r := Rule{Step: stage, Target: node, Effect: Die, Times: 1}
	if !ok || !slices.Contains(dying, stage) {
		return Rule{}, fmt.Errorf("want die:NODE@STAGE with the stage %s", strings.Join(dying, ", "))
	}
	return r, r.checkTarget()
}

func (r Rule) checkTarget() error {
	re, want := nodeRE, "the name of a node, or *"
	switch r.Step {
	case StepLink:
		re, want = linkRE, "NODE/INDEX, or *"
	case StepImage:
		re, want = imageRE, "the name of an image, or *"
	}
	if !re.MatchString(r.Target) {
		return fmt.Errorf("target %q: want %s", r.Target, want)
	}
	return nil
}

// Script is a list of rules at work.
type Script struct {
	mu    sync.Mutex
	rules []Rule
	told  map[string]int // per rule and thing
}

// NewScript returns the script of rules.
func NewScript(rules []Rule) *Script { return &Script{rules: rules, told: make(map[string]int)} }

// For returns the rules about a node's machine.
func (s *Script) For(node string) []Rule {
	var mine []Rule
	for _, r := range s.rules {
		if r.Step != StepImage && r.Step != StepLink && (r.Target == node || r.Target == "*") {
			mine = append(mine, r)
		}
	}
	return mine
}

// Next returns the effect that the script has on a step of a thing now, and
// counts it; an empty rule when it has none.
func (s *Script) Next(step, target string) Rule {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range s.rules {
		if r.Step != step || r.Target != target && r.Target != "*" {
			continue
		}
		key := fmt.Sprintf("%d %s", i, target)
		if r.Times > 0 && s.told[key] >= r.Times {
			continue
		}
		s.told[key]++
		return r
	}
	return Rule{}
}
