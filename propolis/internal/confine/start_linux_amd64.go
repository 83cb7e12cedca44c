package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxTrees is how many descriptors Linux passes with a message.
const maxTrees = 253

// Jail is the place of a program that is being started.
type Jail struct {
	cfg     Config
	control *os.File // our end
	theirs  *os.File
	done    *os.File // closed to end the answers
	answers chan error
}

// Prepare has cmd start a stage instead of the program, which [Jail.Enter] has
// become it. The stage is this program itself.
func Prepare(cmd *exec.Cmd, cfg Config) (*Jail, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	j := &Jail{cfg: cfg, control: os.NewFile(uintptr(fds[0]), "stage"), theirs: os.NewFile(uintptr(fds[1]), "stage's own")}
	// The plan is one message.
	_ = unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, maxPlan)
	cmd.ExtraFiles = append(append([]*os.File{}, cfg.Files...), j.theirs)
	cmd.Path = "/proc/self/exe"
	cmd.Args = []string{stageName, strconv.Itoa(2 + len(cmd.ExtraFiles))}
	cmd.Env = cfg.Env
	cmd.SysProcAttr = attributes(cfg)
	return j, nil
}

// attributes are those of a stage. It has Linux end it with the thread that
// starts it, and is in a process group of its own, which a terminal's Ctrl-C does
// not reach.
func attributes(cfg Config) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	if cfg.Level == Least {
		return a
	}
	a.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if !cfg.HostNetwork {
		a.Cloneflags |= unix.CLONE_NEWNET
	}
	if cfg.Level != Full {
		return a
	}
	a.Cloneflags |= unix.CLONE_NEWUSER
	uid, gid := os.Geteuid(), os.Getegid()
	a.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
	a.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	if uid == 0 {
		ids := []syscall.SysProcIDMap{{HostID: cfg.IDBase, Size: IDs}}
		a.UidMappings, a.GidMappings, a.GidMappingsEnableSetgroups = ids, ids, true
	}
	// Its id is not root's in there, so an exec would take all of them.
	a.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETUID, unix.CAP_SETGID, unix.CAP_SETPCAP, unix.CAP_SYS_CHROOT}
	return a
}

// StartError turns the error of the start of a stage into ErrUnavailable where
// the kernel refuses the level.
func StartError(err error) error {
	for _, refusal := range []error{unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EUSERS, unix.EINVAL, unix.ENOSYS} {
		if errors.Is(err, refusal) {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return err
}

// Enter has the stage that runs as pid become the program. Until [Jail.Close] the
// program's opens are answered.
func (j *Jail) Enter(pid int) error {
	j.theirs.Close()
	j.theirs = nil
	if err := j.send(pid); err != nil {
		return err
	}
	var listener *os.File
	data, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(int(j.control.Fd()), data, oob, unix.MSG_CMSG_CLOEXEC)
		if err != nil && !errors.Is(err, unix.ECONNRESET) {
			return os.NewSyscallError("recvmsg", err)
		}
		fds, err := rights(oob[:max(oobn, 0)])
		switch {
		case err != nil:
			return err
		case len(fds) == 1:
			listener = os.NewFile(uintptr(fds[0]), "seccomp")
			continue
		case n > 0:
			return stageError(string(data[:n]))
		case listener == nil && j.cfg.Level == Least:
			return nil
		case listener == nil:
			return fmt.Errorf("%w: its stage ended without a word", ErrUnavailable)
		}
		return j.answer(listener)
	}
}

// stageError is what a stage says.
func stageError(words string) error {
	if why, ok := strings.CutPrefix(words, "!"); ok {
		return errors.New(why)
	}
	return fmt.Errorf("%w: %s", ErrUnavailable, strings.TrimPrefix(words, "?"))
}

// send sends the plan, with the trees that only we can open.
func (j *Jail) send(pid int) error {
	c := j.cfg
	p := plan{
		Path: c.Path, Argv: append([]string{c.Path}, c.Args...), Env: c.Env, Level: c.Level, Check: c.Path == "", Network: c.HostNetwork,
		Root: os.Geteuid() == 0, UID: c.Owner, GID: c.Group,
	}
	if c.Level == Mounts {
		p.UID, p.GID = c.IDBase+c.Owner, c.IDBase+c.Group
	}
	var users *os.File
	if c.Level == Full && p.Root {
		var err error
		if users, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", pid)); err != nil {
			return err
		}
		defer users.Close()
	}
	var trees []int
	defer func() {
		for _, fd := range trees {
			unix.Close(fd)
		}
	}()
	for _, m := range c.Mounts {
		if c.Level == Least {
			break
		}
		s := stageMount{m, -1}
		if p.Root {
			fd, err := openTree(m, users)
			if err != nil {
				if !errors.Is(err, errHanded) {
					err = fmt.Errorf("%w: %w", ErrUnavailable, err)
				}
				return err
			}
			s.FD = len(trees)
			trees = append(trees, fd)
		}
		p.Mounts = append(p.Mounts, s)
	}
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.NewSyscallError("sendmsg", unix.Sendmsg(int(j.control.Fd()), data, unix.UnixRights(trees...), nil, 0))
}

// answer has the program's opens answered.
func (j *Jail) answer(listener *os.File) error {
	ended, done, err := os.Pipe()
	if err != nil {
		listener.Close()
		return err
	}
	j.done, j.answers = done, make(chan error, 1)
	go func() {
		j.answers <- answerOpens(listener, ended, j.cfg.Opened)
		listener.Close()
		ended.Close()
	}()
	return nil
}

// Close ends the answers: from now on the program opens nothing for writing. It
// may be called again.
func (j *Jail) Close() {
	for _, f := range []*os.File{j.done, j.control, j.theirs} {
		if f != nil {
			f.Close()
		}
	}
	j.done, j.control, j.theirs = nil, nil, nil
	if j.answers != nil {
		<-j.answers
		j.answers = nil
	}
}

// rights returns the descriptors that came with a message.
func rights(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var all []int
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, err
		}
		all = append(all, fds...)
	}
	return all, nil
}

// Probe says which level can be had here, and why no higher one.
func Probe() (Level, error) {
	var why error
	for level := Full; level <= Least; level++ {
		if level == Mounts && os.Geteuid() != 0 {
			continue
		}
		err := try(level)
		if err == nil {
			return level, why
		}
		why = errors.Join(why, err)
	}
	return Least + 1, why
}

func try(level Level) error { return start(Config{Level: level, IDBase: FirstID, Mounts: System("")}) }

// start runs a program, or without one only the stage, and waits for its end.
func start(cfg Config) error {
	var cmd exec.Cmd
	j, err := Prepare(&cmd, cfg)
	if err != nil {
		return err
	}
	defer j.Close()
	if err := cmd.Start(); err != nil {
		return StartError(err)
	}
	err = j.Enter(cmd.Process.Pid)
	j.Close()
	return errors.Join(err, cmd.Wait())
}
