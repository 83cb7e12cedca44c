package falcon

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/console"
	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/internal/printable"
	"github.com/falcon-vm/falcon-go/propolis"
)

// setupTimeout bounds the set-up commands in a guest, which load a module and
// mount file systems at the most; copyTimeout those of a guest that copies a
// folder instead.
const (
	setupTimeout = time.Minute
	copyTimeout  = 15 * time.Minute
)

// setUp waits for the guest's shell, names the host and mounts its folders. The
// console is read from an offset on, that of the machine's start.
func (l *lab) setUp(ctx context.Context, client *propolis.Client, np *NodePlan, id string, start uint64, loginTimeout time.Duration) error {
	if !np.Setup {
		return nil
	}
	l.stage(np.Name, StageBoot, np.Boot.Method)
	// Half of the time is the agent's, the rest is for the console of a guest
	// whose agent was taken away.
	var a *agent.Client
	var err error
	if np.Agent != "" {
		a, err = l.answeringAgent(ctx, np, loginTimeout/2)
	}
	switch {
	case a != nil:
		return l.setUpByAgent(ctx, a, np, id)
	case err != nil && !errors.Is(err, errAgentSilent):
		return err
	case err != nil:
		l.log.Warn("setting the guest up through its console", "node", np.Name, "error", err)
		loginTimeout -= loginTimeout / 2
	}
	stream, err := client.Serial(ctx, propolis.SerialOptions{FromStart: &start})
	if err != nil {
		return fmt.Errorf("opening the console: %w", err)
	}
	c := console.New(stream, console.Options{Name: np.Name})
	defer c.Close()
	profile, err := consoleProfile(np)
	if err != nil {
		return err
	}
	profile.Progress = func(s console.Stage) {
		if s == console.StageLogin {
			l.stage(np.Name, StageLogin, "")
		} else {
			l.stage(np.Name, StageBoot, string(s))
		}
	}
	lctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	if err := c.Login(lctx, profile); err != nil {
		return err
	}
	l.stage(np.Name, StageSetup, "")
	command := console.Command{Shell: setupScript(np), Direct: true, Timeout: setupTimeout}
	if isIllumosGuest(np.OS) && len(np.Mounts) > 0 {
		command.Timeout = copyTimeout
	}
	result, err := c.Exec(ctx, command)
	if err == nil && result.Status != 0 {
		// Once more for what it has to say; what was right stays as it is.
		command.Direct = false
		result, err = c.Exec(ctx, command)
	}
	if err != nil {
		return fmt.Errorf("setting the guest up: %w", err)
	}
	if result.Status != 0 {
		return fmt.Errorf("setting the guest up: exit status %d: %s", result.Status, printable.Text(strings.TrimSpace(string(result.Output))))
	}
	return nil
}

// cloneDeadline bounds the first words of a clone, which has booted already.
// They take milliseconds; many clones at once on few cores take seconds.
const cloneDeadline = time.Minute

// setUpClone has a clone become the node that it is to be.
func (l *lab) setUpClone(ctx context.Context, np *NodePlan, id string) error {
	l.stage(np.Name, StageSetup, "")
	a := l.agent(np)
	if a == nil {
		return errors.New("its guest agent is not served")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cloneDeadline, fmt.Errorf("the clone did not say within %v that it is set up", cloneDeadline))
	defer cancel()
	i := identity(np, id, true)
	for {
		begun := time.Now()
		if err := a.Identify(ctx, i); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return fmt.Errorf("setting the guest up: %w", err)
		}
		if time.Since(begun) < clockError {
			return nil
		}
		// The host is so busy that the clock was late when it was set.
		i = agent.Identity{Time: time.Now()}
	}
}

// clockError is how far a clone's clock may be from the host's.
const clockError = 500 * time.Millisecond

// setUpByAgent has a guest's agent do what setUp does.
func (l *lab) setUpByAgent(ctx context.Context, a *agent.Client, np *NodePlan, id string) error {
	l.stage(np.Name, StageSetup, "")
	ctx, cancel := context.WithTimeoutCause(ctx, setupTimeout, fmt.Errorf("the guest did not say within %v that it is set up", setupTimeout))
	defer cancel()
	if err := a.Identify(ctx, identity(np, id, false)); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("setting the guest up: %w", err)
	}
	return nil
}

// setupScript returns the commands that make a guest the node that it is. They
// change nothing that is right already.
func setupScript(np *NodePlan) string {
	if isIllumosGuest(np.OS) {
		return illumosSetup(np)
	}
	return linuxSetup(np)
}

// isIllumosGuest tells by the word for an image's operating system whether it
// is an illumos: the other systems that falcon knows how to set up are Linux.
func isIllumosGuest(os string) bool {
	for _, name := range []string{"helios", "illumos", "omnios", "openindiana", "smartos", "tribblix"} {
		if strings.HasPrefix(strings.ToLower(os), name) {
			return true
		}
	}
	return false
}

func linuxSetup(np *NodePlan) string {
	var b strings.Builder
	name := shellQuote(np.Name)
	// By what is built into the shell: without hardware acceleration each
	// program that is run costs tens of milliseconds.
	fmt.Fprintf(&b, "set -e\necho %s > /proc/sys/kernel/hostname\necho %s > /etc/hostname\n", name, name)
	addHost(&b, np.Name, "127.0.1.1 "+np.Name)
	for _, m := range np.Mounts {
		target := shellQuote(m.Target)
		mount := fmt.Sprintf("mount -t 9p -o trans=virtio,version=9p2000.L,msize=65536,ro %s %s", shellQuote(m.Tag), target)
		fmt.Fprintf(&b, "m=; while read -r d p t o; do case \"$p $t\" in %s) m=1 ;; esac; done < /proc/mounts\n",
			shellQuote(mountsEscape.Replace(m.Target)+" 9p"))
		fmt.Fprintf(&b, "[ -d %[1]s ] || mkdir -p %[1]s\n", target)
		// A kernel older than 5.16 does not load the transport by itself.
		fmt.Fprintf(&b, "[ \"$m\" ] || %[1]s 2>/dev/null || { modprobe 9pnet_virtio 2>/dev/null || true; %[1]s; } || "+
			"{ echo the guest cannot mount %[2]s: its kernel must have the 9p file system, which kernels made for clouds lack; exit 1; }\n", mount, target)
		keepMount(&b, m)
	}
	return b.String()
}

// keepMount has a guest without an agent mount a folder at each boot: it may start
// over without anybody of falcon's being there. One that cannot keep it is set up
// all the same.
func keepMount(b *strings.Builder, m MountPlan) {
	tag := mountsEscape.Replace(m.Tag)
	line := tag + " " + mountsEscape.Replace(m.Target) + " 9p trans=virtio,version=9p2000.L,msize=65536,ro,nofail 0 0"
	fmt.Fprintf(b, "f=; if [ -r /etc/fstab ]; then while read -r d o; do case $d in %s) f=1 ;; esac; done < /etc/fstab; fi\n"+
		"[ \"$f\" ] || printf '%%s\\n' %s >> /etc/fstab || true\n", shellQuote(tag), shellQuote(line))
}

// addHost adds a line to /etc/hosts if the name is not in it as a word.
func addHost(b *strings.Builder, name string, lines ...string) {
	b.WriteString("h=\nif [ -r /etc/hosts ]; then while IFS= read -r l; do h=\"$h $l \"; done < /etc/hosts; fi\n")
	fmt.Fprintf(b, "case $h in *' '%s' '*) ;; *)", shellQuote(name))
	for _, l := range lines {
		fmt.Fprintf(b, " echo %s >> /etc/hosts ;", shellQuote(l))
	}
	b.WriteString("; esac\n")
}

// illumosSetup sets up an illumos guest. Its kernel has no 9p file system:
// p9kp copies all that the folder holds through the device, and does so again
// at each start. It takes the first such device, so a node has one at the most.
func illumosSetup(np *NodePlan) string {
	var b strings.Builder
	name := shellQuote(np.Name)
	fmt.Fprintf(&b, "set -e\nhostname %[1]s\necho %[1]s > /etc/nodename\n", name)
	local := np.Name + ".local " + np.Name
	addHost(&b, np.Name, "::1 "+local, "127.0.0.1 "+local)
	for _, m := range np.Mounts {
		// Without the variable it names every file on the console.
		fmt.Fprintf(&b, "mkdir -p %[1]s\n( cd %[1]s && RUST_LOG=error p9kp pull ) || { echo the guest cannot copy %[1]s: its system must have p9kp; exit 1; }\n",
			shellQuote(m.Target))
	}
	return b.String()
}

// mountsEscape writes a path as /proc/mounts does.
var mountsEscape = strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`)

// shellQuote quotes a word for a POSIX shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// consoleProfile is how one logs in to a node.
func consoleProfile(np *NodePlan) (console.Profile, error) {
	p := console.Profile{Known: np.Console.Known, User: np.Console.User, Password: np.Console.Password}
	if np.Console.Login != "" {
		p.Login = regexp.MustCompile(regexp.QuoteMeta(np.Console.Login) + `\s*$`)
	}
	if np.Console.Prompt != "" {
		prompt, err := regexp.Compile(np.Console.Prompt)
		if err != nil {
			return p, fmt.Errorf("the prompt of image %s: %w", np.Image, err)
		}
		p.Prompt = prompt
	}
	return p, nil
}
