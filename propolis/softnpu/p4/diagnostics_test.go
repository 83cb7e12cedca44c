package p4

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the compiler says to the golden files")

// What the compiler says of wrong programs, whole and in order.
func TestDiagnostics(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.p4")
	if err != nil || len(files) == 0 {
		t.Fatalf("no programs: %v", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			_, err := CompileFile(f)
			var ds Diagnostics
			if !errors.As(err, &ds) {
				t.Fatalf("the error is %v", err)
			}
			got := ds.Error() + "\n"
			golden := strings.TrimSuffix(f, ".p4") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
