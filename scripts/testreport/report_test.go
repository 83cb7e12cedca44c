package main

import (
	"bytes"
	"strings"
	"testing"
)

const skipList = `
# comment
short   .*               -short|boots a guest
user    falcon\.TestRoot needs root
`

// judge runs a report over events, one a line.
func judge(t *testing.T, partial bool, when []string, events ...string) (*report, string) {
	t.Helper()
	var out bytes.Buffer
	r := newReport(&out)
	r.partial = partial
	var err error
	if r.allowed, err = parseSkips(skipList, when); err != nil {
		t.Fatal(err)
	}
	if err := r.read(strings.NewReader(strings.Join(events, "\n"))); err != nil {
		t.Fatal(err)
	}
	r.finish()
	return r, out.String()
}

func ended(action, test string) string {
	return `{"Action":"` + action + `","Package":"github.com/falcon-vm/falcon-go/falcon","Test":"` + test + `"}`
}

func said(test, text string) string {
	return `{"Action":"output","Package":"github.com/falcon-vm/falcon-go/falcon","Test":"` + test + `","Output":"` + text + `\n"}`
}

func TestVerdicts(t *testing.T) {
	for name, c := range map[string]struct {
		partial                 bool
		when                    []string
		events                  []string
		passed, failed, skipped int
		shows                   string
	}{
		"passed tests": {
			events: []string{ended("pass", "TestA"), ended("pass", "TestB"), ended("pass", "")},
			passed: 2, shows: "ok      0.0s  falcon\n",
		},
		"a failed test": {
			events: []string{ended("pass", "TestA"), said("TestB", "one is not two"), ended("fail", "TestB"), ended("fail", "")},
			passed: 1, failed: 1, shows: "one is not two",
		},
		"a failed subtest counts once": {
			events: []string{ended("run", "TestA"), ended("run", "TestA/x"), ended("run", "TestA/y"),
				ended("fail", "TestA/x"), ended("pass", "TestA/y"), ended("fail", "TestA"), ended("fail", "")},
			passed: 1, failed: 1, shows: "failed: falcon.TestA/x\n",
		},
		"a test that fails beside its subtests": {
			events: []string{ended("run", "TestA/x"), ended("pass", "TestA/x"), ended("fail", "TestA"), ended("fail", "")},
			passed: 1, failed: 1, shows: "failed: falcon.TestA\n",
		},
		"a package that does not build": {
			events: []string{
				`{"ImportPath":"github.com/falcon-vm/falcon-go/falcon [falcon.test]","Action":"build-output","Output":"undefined: x\n"}`,
				ended("fail", "")},
			failed: 1, shows: "undefined: x",
		},
		"a package that dies between tests": {
			events: []string{ended("pass", "TestA"), said("", "panic: no"), ended("fail", "")},
			passed: 1, failed: 1, shows: "panic: no",
		},
		"a run that is cut off": {
			events: []string{ended("run", "TestA"), said("TestA", "so far")},
			failed: 1, shows: "did not end: falcon",
		},
		"no package": {failed: 1, shows: "no test was run"},
		"a package that runs none of its tests": {
			events: []string{said("", "testing: warning: no tests to run"), ended("pass", "")},
			failed: 1, shows: "ran no test: falcon",
		},
		"the same where tests are selected": {
			partial: true,
			events:  []string{ended("pass", ""), strings.Replace(ended("pass", "TestA"), "-go/falcon", "-go/other", 1)},
			passed:  1, failed: 1, shows: "did not end: other",
		},
		"a package without tests": {
			events: []string{said("", "?   falcon [no test files]"), ended("skip", ""), ended("pass", "TestA"), ended("pass", "")},
			passed: 1,
		},
		"a skip that is not on the list": {
			events: []string{said("TestA", "a_test.go:1: no QEMU"), ended("skip", "TestA"), ended("pass", "")},
			failed: 1, shows: "skipped without leave: falcon.TestA: a_test.go:1: no QEMU\n",
		},
		"a skip of a short run": {
			when:    []string{"short"},
			events:  []string{said("TestA", "a_test.go:1: boots a guest"), ended("skip", "TestA"), ended("pass", "")},
			skipped: 1, shows: "ok      0.0s  falcon  (1 skipped)\n",
		},
		"the same in a run that is not short": {
			when:   []string{"user"},
			events: []string{said("TestA", "a_test.go:1: boots a guest"), ended("skip", "TestA"), ended("pass", "")},
			failed: 1,
		},
		"a good reason of another test": {
			when:   []string{"user"},
			events: []string{said("TestRootless", "needs root"), ended("skip", "TestRootless"), ended("pass", "")},
			failed: 1,
		},
		"a skip that says nothing": {
			when:   []string{"short", "user"},
			events: []string{said("TestA", "--- SKIP: TestA (0.00s)"), ended("skip", "TestA"), ended("pass", "")},
			failed: 1, shows: "no reason given",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, out := judge(t, c.partial, c.when, c.events...)
			if r.passed != c.passed || r.failed != c.failed || r.skipped != c.skipped {
				t.Errorf("%d passed, %d failed, %d skipped; want %d, %d, %d\n%s",
					r.passed, r.failed, r.skipped, c.passed, c.failed, c.skipped, out)
			}
			if !strings.Contains(out, c.shows) {
				t.Errorf("printed\n%swithout %q", out, c.shows)
			}
		})
	}
}

func TestLinesOfGoItselfArePassedOn(t *testing.T) {
	_, out := judge(t, false, nil, "go: no such tool", ended("pass", "TestA"), ended("pass", ""))
	if !strings.HasPrefix(out, "go: no such tool\n") {
		t.Errorf("printed\n%s", out)
	}
}

func TestBadSkipListsAreRefused(t *testing.T) {
	for _, list := range []string{"short", "short .*", "short ( x", "short .* ("} {
		if _, err := parseSkips(list, nil); err == nil {
			t.Errorf("%q was taken", list)
		}
	}
}
