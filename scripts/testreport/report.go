package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"
)

// slow is from how many seconds on a passed test is worth a line.
const slow = 5

// report collects a run.
type report struct {
	out     io.Writer
	allowed []skipRule
	partial bool

	running  map[string]*packageRun
	build    map[string]string // output of builds by import path
	problems []string          // what is repeated at the end

	passed, failed, skipped int
}

// packageRun is what is known of a package whose tests run.
type packageRun struct {
	output map[string]string // by test; of the package itself under ""
	failed map[string]bool
	parent map[string]bool // tests that have subtests
	tests  int             // that ran to an end
	failures,
	skips int
}

func newReport(out io.Writer) *report {
	return &report{out: out, running: make(map[string]*packageRun), build: make(map[string]string)}
}

func (r *report) pkg(name string) *packageRun {
	p := r.running[name]
	if p == nil {
		p = &packageRun{output: make(map[string]string), failed: make(map[string]bool), parent: make(map[string]bool)}
		r.running[name] = p
	}
	return p
}

func (r *report) take(e event) {
	if e.Action == "build-output" {
		r.build[e.ImportPath] += e.Output
		return
	}
	if e.Package == "" {
		return
	}
	p := r.pkg(e.Package)
	switch e.Action {
	case "run":
		if up := parentOf(e.Test); up != "" {
			p.parent[up] = true
		}
	case "output":
		p.output[e.Test] += e.Output
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e, p)
		} else {
			r.endTest(e, p)
		}
	}
}

// endTest counts a test. One with subtests counts only where they do not
// account for how it ended.
func (r *report) endTest(e event, p *packageRun) {
	p.tests++
	name := short(e.Package) + "." + e.Test
	switch e.Action {
	case "pass":
		if !p.parent[e.Test] {
			r.passed++
		}
		if e.Elapsed >= slow && parentOf(e.Test) == "" {
			fmt.Fprintf(r.out, "     %6.1fs  %s\n", e.Elapsed, name)
		}
	case "fail":
		if up := parentOf(e.Test); up != "" {
			p.failed[up] = true
		}
		if !p.failed[e.Test] {
			r.failed++
			p.failures++
			r.problem("failed: " + name)
		}
		fmt.Fprint(r.out, p.output[e.Test])
	case "skip":
		r.skip(name, reason(p.output[e.Test]), p)
	}
	delete(p.output, e.Test)
}

func (r *report) skip(name, why string, p *packageRun) {
	for _, rule := range r.allowed {
		if rule.test.MatchString(name) && rule.reason.MatchString(why) {
			r.skipped++
			p.skips++
			return
		}
	}
	r.failed++
	p.failures++
	r.problem(fmt.Sprintf("skipped without leave: %s: %s", name, why))
}

func (r *report) endPackage(e event, p *packageRun) {
	name := short(e.Package)
	noFiles := strings.Contains(p.output[""], "[no test files]")
	switch {
	case e.Action == "fail" && p.failures == 0:
		r.failed++
		r.problem("failed: " + name)
		fmt.Fprint(r.out, r.buildOutput(e.Package), strings.Join(values(p.output), ""))
	case e.Action == "pass" && p.tests == 0 && !noFiles && !r.partial:
		r.failed++
		p.failures++
		r.problem("ran no test: " + name)
	}
	verdict := "ok  "
	if e.Action == "fail" || p.failures > 0 {
		verdict = "FAIL"
	}
	if !noFiles && (p.tests > 0 || verdict == "FAIL") {
		fmt.Fprintf(r.out, "%s %6.1fs  %s%s\n", verdict, e.Elapsed, name, skipNote(p.skips))
	}
	delete(r.running, e.Package)
}

func skipNote(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("  (%d skipped)", n)
}

// buildOutput is what the compiler said about a package and its test's variants.
func (r *report) buildOutput(pkg string) string {
	var text string
	for path, out := range r.build {
		if path == pkg || strings.HasPrefix(path, pkg+" [") || strings.HasPrefix(path, pkg+"_test [") {
			text += out
		}
	}
	return text
}

func (r *report) problem(text string) { r.problems = append(r.problems, text) }

// finish repeats what went wrong. A run that was cut off, or had no test in it,
// did go wrong.
func (r *report) finish() {
	for name, p := range r.running {
		r.failed++
		r.problem("did not end: " + short(name))
		fmt.Fprint(r.out, strings.Join(values(p.output), ""))
	}
	for path, out := range r.build {
		if r.failed == 0 {
			r.failed++
			r.problem("does not build: " + short(path) + "\n" + out)
		}
	}
	if r.passed+r.failed+r.skipped == 0 {
		r.failed++
		r.problem("no test was run")
	}
	for _, text := range r.problems {
		fmt.Fprintln(r.out, text)
	}
}

// skipRule is a reason for which tests may be skipped.
type skipRule struct{ test, reason *regexp.Regexp }

// parseSkips reads the rules that hold in runs of the given kinds: lines of
// three fields, separated by blanks, of which the third goes to the line's end.
func parseSkips(list string, when []string) ([]skipRule, error) {
	holds := map[string]bool{"always": true}
	for _, w := range when {
		holds[w] = true
	}
	var rules []skipRule
	for i, line := range strings.Split(list, "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) < 3 {
			return nil, fmt.Errorf("line %d: want a kind of run, tests, and a reason", i+1)
		}
		test, err := regexp.Compile("^(?:" + fields[1] + ")$")
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		reason, err := regexp.Compile(strings.Join(fields[2:], " "))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		if holds[fields[0]] {
			rules = append(rules, skipRule{test, reason})
		}
	}
	return rules, nil
}

// reason is what a skipped test said, without the lines of the framework.
func reason(output string) string {
	var said []string
	for _, line := range strings.Split(output, "\n") {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, "; ")
}

// parentOf is the test that a subtest belongs to, or empty.
func parentOf(test string) string {
	if i := strings.LastIndexByte(test, '/'); i > 0 {
		return test[:i]
	}
	return ""
}

// short leaves out the module's path.
func short(pkg string) string {
	return strings.TrimPrefix(strings.TrimPrefix(pkg, "github.com/falcon-vm/falcon-go"), "/")
}

func values(m map[string]string) []string {
	var list []string
	for _, v := range m {
		list = append(list, v)
	}
	return list
}
