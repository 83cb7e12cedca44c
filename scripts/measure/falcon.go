//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/internal/mux"
)

// falcon launches by a topology program.
type falcon struct {
	b    *bench
	warm bool
	// lines remembers the command lines of the last ring of a kind, for the
	// bare machines beside it.
	lines map[ring][]commandLine
}

func (f *falcon) peer() peer {
	p := peer{Name: "falcon, cold", Version: strings.TrimSpace(readFile(filepath.Join(f.b.work, "revision"))),
		Settings: "`launch` of a topology program whose nodes are declared to boot, until it has ended and the guest agent of each node has then run `true`; 1 processor, 128 MiB (micro) or 256 MiB (debian-12); as root, links in the kernel (eBPF)"}
	if f.warm {
		p.Name = "falcon, warm"
		p.Settings = "`launch` likewise, each node a clone of a template that is there"
	}
	return p
}

func (f *falcon) open(ctx context.Context, r ring) (lab, error) {
	dir, err := os.MkdirTemp(f.b.work, "l")
	if err != nil {
		return nil, err
	}
	l := &falconLab{falcon: f, ring: r, dir: dir}
	if !f.warm {
		return l, nil
	}
	// Machines of as many NICs share a template.
	key := fmt.Sprintf("%s, %d interfaces", r.image, r.nics())
	if f.b.templates[key] {
		return l, nil
	}
	first := &falconLab{falcon: f, ring: ring{r.image, min(r.nodes, 2)}, dir: dir}
	took, err := timed(ctx, first.launch)
	err = errors.Join(err, first.destroy(context.WithoutCancel(ctx)))
	if err != nil {
		l.close()
		return nil, fmt.Errorf("the launch that makes the template: %w", err)
	}
	f.b.report.add(sectionLaunch, first.ring.String()+", the template has yet to be made", f.peer().Name, "s", took)
	f.b.templates[key] = true
	return l, nil
}

// falconLab is a ring in a folder.
type falconLab struct {
	*falcon
	ring ring
	dir  string
	// flags are those of the topology program that its ring does not say.
	flags []string
	// returned is when the command had ended, in seconds.
	returned float64
}

func (l *falconLab) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := l.b.command(ctx, filepath.Join(l.b.work, "rings"), append([]string{"-f", filepath.Join(l.dir, "s")}, args...)...)
	cmd.Dir = l.dir
	return finish(ctx, cmd)
}

func (l *falconLab) launch(ctx context.Context) error {
	begun := time.Now()
	args := append([]string{"-n", fmt.Sprint(l.ring.nodes), "--image", l.ring.image, "--memory", fmt.Sprint(memory[l.ring.image]),
		fmt.Sprintf("--boot=%v", !l.warm), "launch", "--timeout", launchDeadline.String()}, l.flags...)
	_, err := l.run(ctx, args...)
	if err != nil {
		return err
	}
	l.returned = time.Since(begun).Seconds()
	return each(ctx, l.ring.nodes, 0, func(ctx context.Context, i int) error {
		return answers(ctx, l.agent(i))
	})
}

// agent returns a client of a node's agent.
func (l *falconLab) agent(i int) *agent.Client {
	path := filepath.Join(l.dir, "s", fmt.Sprintf("n%d.agent.sock", i))
	return agent.New(func(ctx context.Context) (io.ReadWriteCloser, error) {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		if err != nil {
			return nil, err
		}
		return mux.Client(conn), nil
	})
}

// answers has a guest run true.
func answers(ctx context.Context, a *agent.Client) error {
	exit, err := a.Exec(ctx, agent.Command{Exec: agent.Exec{Argv: []string{"true"}}})
	if err == nil && exit.Code() != 0 {
		err = fmt.Errorf("true ended with status %d", exit.Code())
	}
	return err
}

// falconNode is the part of `info --json` that is used here.
type falconNode struct {
	Name      string `json:"name"`
	PID       int    `json:"pid"`
	ServerPID int    `json:"server_pid"`
	Disk      string `json:"disk"`
}

func (l *falconLab) nodes(ctx context.Context) ([]falconNode, error) {
	out, err := l.run(ctx, "info", "--json")
	if err != nil {
		return nil, err
	}
	var info struct{ Nodes []falconNode }
	if err := json.Unmarshal(out, &info); err != nil {
		return nil, err
	}
	if len(info.Nodes) != l.ring.nodes {
		return nil, fmt.Errorf("info lists %d nodes, not %d", len(info.Nodes), l.ring.nodes)
	}
	return info.Nodes, nil
}

func (l *falconLab) processes() ([]int, error) {
	nodes, err := l.nodes(context.Background())
	var pids []int
	for _, n := range nodes {
		for _, pid := range []int{n.PID, n.ServerPID} {
			if !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids, err
}

// remember keeps how the nodes were started, and that they were started as this
// contender does.
func (l *falconLab) remember(ctx context.Context) error {
	nodes, err := l.nodes(ctx)
	if err != nil {
		return err
	}
	var lines []commandLine
	for _, n := range nodes {
		line, err := l.b.commandLine(ctx, filepath.Join(l.dir, "s", n.Name+".out"), n.Disk)
		if err == nil && line.clone() != l.warm {
			err = fmt.Errorf("it was not started as it should have been: from a template %v, wanted %v", line.clone(), l.warm)
		}
		if err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
		lines = append(lines, line)
	}
	l.lines[l.ring] = lines
	return nil
}

func (l *falconLab) destroy(ctx context.Context) error {
	_, err := l.run(ctx, "destroy")
	return err
}

func (l *falconLab) close() {
	ctx, cancel := context.WithTimeout(context.Background(), commandDeadline)
	defer cancel()
	if _, err := os.Stat(filepath.Join(l.dir, "s")); err == nil {
		_ = l.destroy(ctx) // the end of the namespaces ends what this cannot
	}
	os.RemoveAll(l.dir)
}
