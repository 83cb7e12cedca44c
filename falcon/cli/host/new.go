package host

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/falcon-vm/falcon-go/falcon"
	"github.com/falcon-vm/falcon-go/falcon/cli"
)

// module is falcon's own module path.
const module = "github.com/falcon-vm/falcon-go"

// template is a program for a topology named NAME.
//
//go:embed main.go.tmpl
var template string

func newNewCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "new NAME",
		Short: "Write a topology program to start from",
		Long: `Write a topology program to start from, in a new folder called NAME: main.go,
and a go.mod where no module surrounds it and falcon's sources are at hand.`,
		Args: wantArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if err := falcon.New(name).Validate(cmd.Context()); err != nil {
				return cli.UsageError(cmd, "%w", err)
			}
			next, err := writeProgram(name)
			if err != nil {
				return err
			}
			printf(cmd, "%s is written\nnext: %s\n", filepath.Join(name, "main.go"), next)
			return nil
		},
	}
}

// writeProgram writes the files of a program and returns what to type next.
func writeProgram(name string) (next string, err error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	around, err := surroundingModule(wd)
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(name, 0o777); err != nil {
		if errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf("%s exists already: choose another name, or remove it", name)
		}
		return "", err
	}
	program := strings.ReplaceAll(template, "NAME", name)
	if err := os.WriteFile(filepath.Join(name, "main.go"), []byte(program), 0o666); err != nil {
		return "", err
	}
	build := fmt.Sprintf("cd %s && go build && ./%s launch", name, name)
	if around != nil {
		if modulePath(around) != module && !requires(around, module) {
			build = fmt.Sprintf("go get %s && %s", module, build)
		}
		return build, nil
	}
	written, err := writeModule(name)
	if err == nil && !written {
		build = strings.Replace(build, "go build", fmt.Sprintf("go mod init %s && go mod tidy && go build", name), 1)
	}
	return build, err
}

// surroundingModule returns the go.mod of the module that a folder is in, nil
// when it is in none.
func surroundingModule(dir string) ([]byte, error) {
	for {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil {
			return data, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if dir == filepath.Dir(dir) {
			return nil, nil
		}
		dir = filepath.Dir(dir)
	}
}

var moduleLine = regexp.MustCompile(`(?m)^module\s+"?([^\s"]+)`)

func modulePath(mod []byte) string {
	if m := moduleLine.FindSubmatch(mod); m != nil {
		return string(m[1])
	}
	return ""
}

func requires(mod []byte, path string) bool { return bytes.Contains(mod, []byte(path+" ")) }

// writeModule writes the go.mod of a program where this tool was built from a
// source tree that is still there: the program is then built from it too, with
// the same dependencies and nothing to be fetched.
func writeModule(dir string) (written bool, err error) {
	own, sums, source := sourceTree()
	if source == "" {
		return false, nil
	}
	mod := moduleLine.ReplaceAll(own, []byte("module "+filepath.Base(dir)))
	mod = fmt.Appendf(mod, "\nrequire %s v0.0.0\n\nreplace %[1]s => %s\n", module, source)
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), mod, 0o666); err != nil {
		return false, err
	}
	return true, os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o666)
}

// sourceTree returns falcon's own go.mod and go.sum and where they are; an empty
// path when this tool was not built from a source tree on this machine.
func sourceTree() (mod, sums []byte, dir string) {
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		return nil, nil, ""
	}
	dir = filepath.Join(filepath.Dir(file), "..", "..", "..")
	mod, merr := os.ReadFile(filepath.Join(dir, "go.mod"))
	sums, serr := os.ReadFile(filepath.Join(dir, "go.sum"))
	if merr != nil || serr != nil || modulePath(mod) != module {
		return nil, nil, ""
	}
	return mod, sums, dir
}
