package build

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/internal/agent"
)

const (
	// agentProgram is where the agent is in an image, without the leading
	// slash. Its name is the one under which a program that imports falcon is
	// the agent.
	agentProgram = "usr/lib/falcon/falcon-agent"
	agentPackage = "github.com/falcon-vm/falcon-go/cmd/falcon-agent"
	// agentLimit bounds the compilation of the agent, which takes seconds.
	agentLimit = 5 * time.Minute
)

// agentFor returns the program falcon-agent for a guest and its version. With a
// Go toolchain it is compiled: 2.5 MB that start in a few milliseconds. Without
// one it is this very program, which is the agent under the agent's name, where
// it needs no libraries. An image without either has no agent, and its nodes are
// worked through their consoles.
func (j *job) agentFor(ctx context.Context) (program []byte, version string, err error) {
	program, version, err = j.makeAgent(ctx)
	if err != nil {
		j.step(fmt.Sprintf("the image gets no guest agent: %v", err))
		return nil, "", ctx.Err()
	}
	return program, version, nil
}

// Agent returns the program falcon-agent for a guest, made in a folder, and its
// version.
func Agent(ctx context.Context, dir string, progress image.Progress) (program []byte, version string, err error) {
	j := &job{dir: dir, progress: progress}
	return j.makeAgent(ctx)
}

func (j *job) makeAgent(ctx context.Context) (program []byte, version string, err error) {
	j.step("making the guest agent")
	path, reason := j.compileAgent(ctx)
	if reason != nil {
		var self error
		if path, self = j.selfAsAgent(ctx); self != nil {
			return nil, "", fmt.Errorf("%w; and %w", reason, self)
		}
	}
	program, err = os.ReadFile(path)
	return program, agent.Version, err
}

// compileAgent compiles the agent from the sources of this program.
func (j *job) compileAgent(ctx context.Context) (string, error) {
	tool, err := exec.LookPath("go")
	if err != nil {
		return "", fmt.Errorf("there is no Go toolchain to compile it")
	}
	ctx, cancel := context.WithTimeout(ctx, agentLimit)
	defer cancel()
	out := filepath.Join(j.dir, "falcon-agent")
	cmd := exec.CommandContext(ctx, tool, "build", "-trimpath", "-ldflags=-s -w", "-o", out, agentPackage)
	cmd.Dir = sourceDir()
	// What the program itself was made of is there; nothing is downloaded.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOTOOLCHAIN=local", "GOPROXY=off", "GOFLAGS=-buildvcs=false")
	if said, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compiling it: %w: %s", err, strings.TrimSpace(string(said)))
	}
	return out, checkAgent(ctx, out)
}

// sourceDir is where this file was compiled, if it is still there; else the
// working directory, whose module may require this one.
func sourceDir() string {
	_, file, _, ok := runtime.Caller(0)
	if _, err := os.Stat(file); !ok || err != nil || !filepath.IsAbs(file) {
		return ""
	}
	return filepath.Dir(file)
}

// selfAsAgent copies this program under the agent's name.
func (j *job) selfAsAgent(ctx context.Context) (string, error) {
	const self = "/proc/self/exe"
	f, err := elf.Open(self)
	if err != nil {
		return "", fmt.Errorf("this program cannot be it: %w", err)
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return "", fmt.Errorf("this program cannot be it, because it needs libraries: build it with CGO_ENABLED=0")
	}
	data, err := os.ReadFile(self)
	if err != nil {
		return "", err
	}
	out := filepath.Join(j.dir, "falcon-agent")
	if err := os.WriteFile(out, data, 0o755); err != nil {
		return "", err
	}
	return out, checkAgent(ctx, out)
}

// checkAgent has a program say that it is the agent of our version.
func checkAgent(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if said := strings.TrimSpace(string(out)); err != nil || said != "falcon-agent "+agent.Version {
		return fmt.Errorf("%s is not the agent of version %s: it says %q (%w)", path, agent.Version, said, err)
	}
	return nil
}
