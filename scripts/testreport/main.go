// Command testreport judges a test run: it reads what "go test -json" prints and
// shows each package, each slow test, the output of each failure, and each
// skipped test. A test that was skipped for a reason that is not on the list of
// good ones has failed, and so has a package that ran none of its tests.
//
//	go test -json ./... | testreport -skips scripts/skips -when short
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	skips := flag.String("skips", "", "`file` with the good reasons for a skip")
	when := flag.String("when", "", "`words` that say what kind of run this is, separated by commas")
	partial := flag.Bool("partial", false, "tests are selected: packages may run none")
	counts := flag.String("counts", "", "`file` to write the numbers of passed, failed and skipped tests to")
	flag.Parse()
	if err := run(*skips, strings.Split(*when, ","), *partial, *counts); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(1)
	}
}

func run(skips string, when []string, partial bool, counts string) error {
	r := newReport(os.Stdout)
	r.partial = partial
	if skips != "" {
		list, err := os.ReadFile(skips)
		if err != nil {
			return err
		}
		if r.allowed, err = parseSkips(string(list), when); err != nil {
			return fmt.Errorf("%s: %w", skips, err)
		}
	}
	if err := r.read(os.Stdin); err != nil {
		return err
	}
	r.finish()
	if counts != "" {
		line := fmt.Sprintln(r.passed, r.failed, r.skipped)
		if err := os.WriteFile(counts, []byte(line), 0o600); err != nil {
			return err
		}
	}
	if r.failed > 0 {
		return fmt.Errorf("%d failed", r.failed)
	}
	return nil
}

// event is a line of "go test -json"; see "go doc test2json".
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// read takes in a whole run. A line that is no event is passed on: it is what
// go itself has to say.
func (r *report) read(in io.Reader) error {
	s := bufio.NewScanner(in)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		var e event
		if json.Unmarshal(s.Bytes(), &e) != nil || e.Action == "" {
			fmt.Fprintln(r.out, s.Text())
			continue
		}
		r.take(e)
	}
	return s.Err()
}
