package sim

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mvdan.cc/sh/v3/expand"
)

// command is a program that runs in a guest.
type command struct {
	life *life
	ctx  context.Context
	args []string
	env  expand.Environ
	dir  string
	in   io.Reader
	out  io.Writer
	err  io.Writer
}

// programs are what a guest has beside what its shell has built in.
func programs() map[string]func(*command) int {
	return map[string]func(*command) int{
		"base64": (*command).base64, "basename": (*command).basename, "cat": (*command).cat, "chmod": (*command).accept,
		"cp": (*command).cp, "date": (*command).date, "df": (*command).df, "dirname": (*command).dirname, "dmesg": (*command).dmesg,
		"env": (*command).printEnv, "grep": (*command).grep, "head": (*command).head, "hostname": (*command).hostname,
		"id": (*command).id, "ip": (*command).ip, "ls": (*command).ls, "mkdir": (*command).mkdir, "modprobe": (*command).accept,
		"mount": (*command).mount, "mv": (*command).mv, "nproc": (*command).nproc, "ping": (*command).ping, "poweroff": (*command).poweroff,
		"printenv": (*command).printEnv, "ps": (*command).ps, "reboot": (*command).reboot, "rm": (*command).rm, "rmdir": (*command).rmdir,
		"seq": (*command).seq, "sleep": (*command).sleep, "sort": (*command).sort, "stty": (*command).accept, "sync": (*command).sync,
		"tail": (*command).tail, "tee": (*command).tee, "touch": (*command).touch, "tr": (*command).tr, "umount": (*command).umount, "uname": (*command).uname,
		"uptime": (*command).uptime, "wc": (*command).wc, "which": (*command).which, "whoami": (*command).whoami,
		"kill": (*command).kill, "sysctl": (*command).accept, "clear": (*command).accept,
	}
}

func (c *command) printf(format string, args ...any) { fmt.Fprintf(c.out, format, args...) }

// fail prints why a program has failed and returns its status.
func (c *command) fail(format string, args ...any) int {
	fmt.Fprintf(c.err, "%s: %s\n", c.args[0], fmt.Sprintf(format, args...))
	return 1
}

// cause is an error without what the program says itself.
func cause(err error) string {
	var pe *fs.PathError
	if !errors.As(err, &pe) {
		return err.Error()
	}
	text := pe.Err.Error()
	return pe.Path + ": " + strings.ToUpper(text[:1]) + text[1:]
}

// path is a file's path by an argument.
func (c *command) path(arg string) string { return absolute(c.dir, arg) }

// options takes the options off the arguments: those in valued take a value.
func (c *command) options(valued string) (map[byte]string, []string) {
	given := make(map[byte]string)
	args := c.args[1:]
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		word := args[0][1:]
		args = args[1:]
		if word == "-" {
			break
		}
		for i := 0; i < len(word); i++ {
			if strings.IndexByte(valued, word[i]) < 0 {
				given[word[i]] = ""
				continue
			}
			if given[word[i]] = word[i+1:]; word[i+1:] == "" && len(args) > 0 {
				given[word[i]], args = args[0], args[1:]
			}
			break
		}
	}
	return given, args
}

func has(given map[byte]string, option byte) bool { _, ok := given[option]; return ok }

// input returns what the named files hold, one after the other; the standard
// input without any.
func (c *command) input(names []string) ([]byte, int) {
	if len(names) == 0 {
		names = []string{"-"}
	}
	var all []byte
	status := 0
	for _, name := range names {
		data, err := c.read(name)
		if err != nil {
			status = c.fail("%s", cause(err))
		}
		all = append(all, data...)
	}
	return all, status
}

func (c *command) read(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(c.in)
	}
	return c.life.files.read(c.path(name))
}

// lines splits text into lines without their ends.
func lines(text []byte) []string {
	if len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// accept stands for programs whose effect nobody could see.
func (c *command) accept() int { return 0 }

func (c *command) base64() int {
	given, names := c.options("w")
	data, status := c.input(names)
	if has(given, 'd') {
		out, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(data)), ""))
		if err != nil {
			return c.fail("invalid input")
		}
		_, _ = c.out.Write(out)
		return status
	}
	width := 76
	if w, ok := given['w']; ok {
		width, _ = strconv.Atoi(w)
	}
	text := base64.StdEncoding.EncodeToString(data)
	if width <= 0 {
		c.printf("%s", text)
		return status
	}
	for len(text) > 0 {
		n := min(width, len(text))
		c.printf("%s\n", text[:n])
		text = text[n:]
	}
	return status
}

func (c *command) basename() int {
	if len(c.args) < 2 {
		return c.fail("missing operand")
	}
	name := path.Base(c.args[1])
	if len(c.args) > 2 && name != c.args[2] {
		name = strings.TrimSuffix(name, c.args[2])
	}
	c.printf("%s\n", name)
	return 0
}

func (c *command) dirname() int {
	if len(c.args) < 2 {
		return c.fail("missing operand")
	}
	c.printf("%s\n", path.Dir(c.args[1]))
	return 0
}

// cat copies as it reads, because what it reads may have no end.
func (c *command) cat() int {
	_, names := c.options("")
	if len(names) == 0 {
		names = []string{"-"}
	}
	status := 0
	for _, name := range names {
		in := c.in
		if name != "-" {
			f, err := c.life.open(c.path(name), 0)
			if err != nil {
				status = c.fail("%s", cause(err))
				continue
			}
			in = f
		}
		if _, err := io.Copy(c.out, &cancelled{c.ctx, in}); err != nil {
			return 1
		}
	}
	return status
}

// cancelled is a reader that ends with a context.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (r *cancelled) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

// into is where a copy of a file goes: into a folder, under its own name.
func (c *command) into(source, target string) string {
	target = c.path(target)
	if info, err := c.life.files.stat(target); err == nil && info.IsDir() {
		return path.Join(target, path.Base(source))
	}
	return target
}

func (c *command) cp() int {
	given, names := c.options("")
	if len(names) < 2 {
		return c.fail("missing operand")
	}
	deep := has(given, 'r') || has(given, 'R') || has(given, 'a')
	target := names[len(names)-1]
	status := 0
	for _, name := range names[:len(names)-1] {
		if err := c.copyTree(c.path(name), c.into(name, target), deep); err != nil {
			status = c.fail("%s", cause(err))
		}
	}
	return status
}

func (c *command) copyTree(from, to string, deep bool) error {
	entries, err := c.life.files.list(from)
	if err != nil {
		data, err := c.life.files.read(from)
		if err != nil {
			return err
		}
		return c.life.files.write(to, data, false)
	}
	if !deep {
		return &fs.PathError{Op: "cp", Path: from, Err: errors.New("omitting directory")}
	}
	if err := c.life.files.mkdir(to, true); err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.copyTree(path.Join(from, e.Name()), path.Join(to, e.Name()), true); err != nil {
			return err
		}
	}
	return nil
}

func (c *command) mv() int {
	_, names := c.options("")
	if len(names) < 2 {
		return c.fail("missing operand")
	}
	for _, name := range names[:len(names)-1] {
		err := c.copyTree(c.path(name), c.into(name, names[len(names)-1]), true)
		if err == nil {
			err = c.life.files.remove(c.path(name), true)
		}
		if err != nil {
			return c.fail("%s", cause(err))
		}
	}
	return 0
}

func (c *command) date() int {
	now := time.Now().UTC()
	for _, arg := range c.args[1:] {
		if form, ok := strings.CutPrefix(arg, "+"); ok {
			c.printf("%s\n", strings.NewReplacer("%s", strconv.FormatInt(now.Unix(), 10), "%N", fmt.Sprintf("%09d", now.Nanosecond()),
				"%Y", now.Format("2006"), "%m", now.Format("01"), "%d", now.Format("02"), "%H", now.Format("15"),
				"%M", now.Format("04"), "%S", now.Format("05"), "%F", now.Format(time.DateOnly), "%T", now.Format(time.TimeOnly), "%%", "%").Replace(form))
			return 0
		}
	}
	c.printf("%s\n", now.Format("Mon Jan _2 15:04:05 MST 2006"))
	return 0
}

func (c *command) df() int {
	c.printf("Filesystem           1K-blocks      Used Available Use%% Mounted on\n/dev/vda               1048576       512   1048064   0%% /\n")
	return 0
}

func (c *command) dmesg() int {
	c.printf("%s", c.life.bootMessages())
	return 0
}

func (c *command) printEnv() int {
	if len(c.args) > 1 && c.args[0] == "printenv" {
		v := c.env.Get(c.args[1])
		if !v.IsSet() || !v.Exported {
			return 1
		}
		c.printf("%s\n", v.String())
		return 0
	}
	for name, v := range c.env.Each {
		if v.Exported && v.IsSet() && !slices.Contains([]string{"UID", "EUID", "GID"}, name) {
			c.printf("%s=%s\n", name, v.String())
		}
	}
	return 0
}

func (c *command) grep() int {
	given, args := c.options("e")
	pattern, ok := given['e']
	if !ok {
		if len(args) == 0 {
			return c.fail("missing pattern")
		}
		pattern, args = args[0], args[1:]
	}
	if has(given, 'F') {
		pattern = regexp.QuoteMeta(pattern)
	}
	if has(given, 'x') {
		pattern = "^(?:" + pattern + ")$"
	}
	if has(given, 'w') {
		pattern = `\b(?:` + pattern + `)\b`
	}
	if has(given, 'i') {
		pattern = "(?i)" + pattern
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		c.fail("bad pattern %q", pattern)
		return 2
	}
	data, status := c.input(args)
	if status != 0 {
		return 2
	}
	count := 0
	for _, line := range lines(data) {
		if re.MatchString(line) == has(given, 'v') {
			continue
		}
		count++
		switch {
		case has(given, 'q'):
			return 0
		case has(given, 'o'):
			c.printf("%s\n", strings.Join(re.FindAllString(line, -1), "\n"))
		case !has(given, 'c'):
			c.printf("%s\n", line)
		}
	}
	if has(given, 'c') {
		c.printf("%d\n", count)
	}
	if count == 0 {
		return 1
	}
	return 0
}

// count reads -n N, -c N and -N.
func (c *command) count() (bytewise bool, n int, names []string, err error) {
	if len(c.args) > 1 {
		if n, err := strconv.Atoi(strings.TrimPrefix(c.args[1], "-")); err == nil && c.args[1][0] == '-' {
			return false, n, c.args[2:], nil
		}
	}
	given, names := c.options("nc")
	text, bytewise := given['c']
	if !bytewise {
		if text = given['n']; text == "" {
			text = "10"
		}
	}
	number, unit := strings.TrimRight(text, "kKMG"), 1
	switch strings.TrimLeft(text, "0123456789") {
	case "k", "K":
		unit = 1 << 10
	case "M":
		unit = 1 << 20
	case "G":
		unit = 1 << 30
	}
	n, err = strconv.Atoi(number)
	return bytewise, n * unit, names, err
}

func (c *command) head() int {
	bytewise, n, names, err := c.count()
	if err != nil || n < 0 {
		return c.fail("invalid number")
	}
	if len(names) == 0 {
		names = []string{"-"}
	}
	for _, name := range names {
		in := c.in
		if name != "-" {
			f, err := c.life.open(c.path(name), 0)
			if err != nil {
				return c.fail("%s", cause(err))
			}
			in = f
		}
		in = &cancelled{c.ctx, in}
		if bytewise {
			_, _ = io.CopyN(c.out, in, int64(n))
			continue
		}
		r := bufio.NewReader(in)
		for range n {
			line, err := r.ReadBytes('\n')
			_, _ = c.out.Write(line)
			if err != nil {
				break
			}
		}
	}
	return 0
}

func (c *command) tail() int {
	bytewise, n, names, err := c.count()
	if err != nil {
		return c.fail("invalid number")
	}
	data, status := c.input(names)
	if bytewise {
		_, _ = c.out.Write(data[max(0, len(data)-n):])
		return status
	}
	all := lines(data)
	for _, line := range all[max(0, len(all)-n):] {
		c.printf("%s\n", line)
	}
	return status
}

func (c *command) hostname() int {
	if _, args := c.options("F"); len(args) > 0 {
		c.life.setName(args[0])
		return 0
	}
	c.printf("%s\n", c.life.name())
	return 0
}

func (c *command) id() int {
	if given, _ := c.options(""); has(given, 'u') || has(given, 'g') {
		c.printf("0\n")
		return 0
	}
	c.printf("uid=0(root) gid=0(root) groups=0(root)\n")
	return 0
}

func (c *command) whoami() int {
	c.printf("root\n")
	return 0
}

func (c *command) ls() int {
	given, names := c.options("")
	if len(names) == 0 {
		names = []string{"."}
	}
	status := 0
	for _, name := range names {
		info, err := c.life.files.stat(c.path(name))
		if err != nil {
			status = c.fail("%s", cause(err))
			continue
		}
		if !info.IsDir() || has(given, 'd') {
			c.entry(info, name, has(given, 'l'))
			continue
		}
		entries, err := c.life.files.list(c.path(name))
		if err != nil {
			status = c.fail("%s", cause(err))
			continue
		}
		if len(names) > 1 {
			c.printf("%s:\n", name)
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil && (e.Name()[0] != '.' || has(given, 'a') || has(given, 'A')) {
				c.entry(info, e.Name(), has(given, 'l'))
			}
		}
	}
	return status
}

func (c *command) entry(info fs.FileInfo, name string, long bool) {
	if long {
		c.printf("%s    1 root     root     %9d %s ", info.Mode(), info.Size(), info.ModTime().Format("Jan _2 15:04"))
	}
	c.printf("%s\n", name)
}

func (c *command) mkdir() int {
	given, names := c.options("m")
	for _, name := range names {
		if err := c.life.files.mkdir(c.path(name), has(given, 'p')); err != nil {
			return c.fail("%s", cause(err))
		}
	}
	return 0
}

func (c *command) rm() int {
	given, names := c.options("")
	status := 0
	for _, name := range names {
		err := c.life.files.remove(c.path(name), has(given, 'r') || has(given, 'R'))
		if err != nil && !(has(given, 'f') && errors.Is(err, fs.ErrNotExist)) {
			status = c.fail("%s", cause(err))
		}
	}
	return status
}

func (c *command) rmdir() int {
	for _, name := range c.args[1:] {
		entries, err := c.life.files.list(c.path(name))
		switch {
		case err == nil && len(entries) > 0:
			err = pathError("rmdir", name, syscall.ENOTEMPTY)
		case err == nil:
			err = c.life.files.remove(c.path(name), true)
		}
		if err != nil {
			return c.fail("%s", cause(err))
		}
	}
	return 0
}

func (c *command) touch() int {
	for _, name := range c.args[1:] {
		if err := c.life.files.write(c.path(name), nil, true); err != nil {
			return c.fail("%s", cause(err))
		}
	}
	return 0
}

func (c *command) tee() int {
	given, names := c.options("")
	data, err := io.ReadAll(c.in)
	if err != nil {
		return 1
	}
	_, _ = c.out.Write(data)
	for _, name := range names {
		if err := c.life.files.write(c.path(name), data, has(given, 'a')); err != nil {
			return c.fail("%s", cause(err))
		}
	}
	return 0
}

func (c *command) tr() int {
	given, sets := c.options("")
	data, err := io.ReadAll(c.in)
	if err != nil || len(sets) == 0 {
		return c.fail("missing operand")
	}
	from := span(sets[0])
	if has(given, 'd') {
		_, _ = c.out.Write(bytes.Map(func(r rune) rune {
			if strings.ContainsRune(from, r) {
				return -1
			}
			return r
		}, data))
		return 0
	}
	if len(sets) < 2 || sets[1] == "" {
		return c.fail("missing operand")
	}
	to := span(sets[1])
	for i, b := range data {
		if k := strings.IndexByte(from, b); k >= 0 {
			data[i] = to[min(k, len(to)-1)]
		}
	}
	_, _ = c.out.Write(data)
	return 0
}

// span spells out the ranges of a set such as a-z.
func span(set string) string {
	set = strings.NewReplacer(`\n`, "\n", `\t`, "\t", `\r`, "\r", `\\`, `\`).Replace(set)
	var b strings.Builder
	for i := 0; i < len(set); i++ {
		if i+2 < len(set) && set[i+1] == '-' {
			for ch := int(set[i]); ch <= int(set[i+2]); ch++ {
				b.WriteByte(byte(ch))
			}
			i += 2
			continue
		}
		b.WriteByte(set[i])
	}
	return b.String()
}

// mount shows a 9p file system of the node, or what is mounted.
func (c *command) mount() int {
	given, args := c.options("to")
	kind := given['t']
	if len(args) == 0 {
		c.life.files.mu.Lock()
		table := c.life.files.mountTable()
		c.life.files.mu.Unlock()
		for _, line := range lines([]byte(table)) {
			if f := strings.Fields(line); len(f) > 3 {
				c.printf("%s on %s type %s (%s)\n", f[0], f[1], f[2], f[3])
			}
		}
		return 0
	}
	if len(args) != 2 {
		return c.fail("want -t 9p TAG FOLDER")
	}
	if kind != "9p" {
		return 0 // there is nothing to see of a proc, or a tmpfs
	}
	tag, target := args[0], c.path(args[1])
	source, ok := c.life.g.shares[tag]
	if !ok {
		return c.fail("mounting %s on %s failed: No such file or directory", tag, args[1])
	}
	if info, err := c.life.files.stat(target); err != nil || !info.IsDir() {
		return c.fail("mounting %s on %s failed: No such file or directory", tag, args[1])
	}
	if err := c.life.files.mount(tag, source, target); err != nil {
		return c.fail("mounting %s on %s failed: %s", tag, args[1], cause(err))
	}
	return 0
}

func (c *command) umount() int {
	_, args := c.options("")
	for _, name := range args {
		if !c.life.files.unmount(c.path(name)) {
			return c.fail("can't unmount %s: Invalid argument", name)
		}
	}
	return 0
}

func (c *command) nproc() int {
	c.printf("%d\n", c.life.g.spec.Board.CPUs)
	return 0
}

func (c *command) ps() int {
	c.printf("PID   USER     COMMAND\n    1 root     init\n   42 root     sh\n")
	return 0
}

// poweroff and reboot end the guest in order, and this program with it.
func (c *command) poweroff() int {
	go c.life.g.shutDown(guestOff)
	<-c.life.ctx.Done()
	return 0
}

func (c *command) reboot() int {
	go c.life.g.restart()
	<-c.life.ctx.Done()
	return 0
}

func (c *command) seq() int {
	var n []int
	for _, arg := range c.args[1:] {
		i, err := strconv.Atoi(arg)
		if err != nil {
			return c.fail("invalid number %q", arg)
		}
		n = append(n, i)
	}
	from, step, to := 1, 1, 0
	switch len(n) {
	case 1:
		to = n[0]
	case 2:
		from, to = n[0], n[1]
	case 3:
		from, step, to = n[0], n[1], n[2]
	default:
		return c.fail("want one to three numbers")
	}
	if step == 0 {
		return c.fail("the step is 0")
	}
	for i := from; (step > 0 && i <= to || step < 0 && i >= to) && c.ctx.Err() == nil; i += step {
		c.printf("%d\n", i)
	}
	return 0
}

func (c *command) sleep() int {
	var sum time.Duration
	for _, arg := range c.args[1:] {
		if strings.Trim(arg, "0123456789.") == "" {
			arg += "s"
		}
		d, err := time.ParseDuration(arg)
		if err != nil {
			return c.fail("invalid time %q", arg)
		}
		sum += d
	}
	if Sleep(c.ctx, sum) != nil {
		return interrupted
	}
	return 0
}

func (c *command) sort() int {
	given, names := c.options("k")
	data, status := c.input(names)
	all := lines(data)
	compare := strings.Compare
	if has(given, 'n') {
		number := regexp.MustCompile(`^\s*-?[0-9]+`)
		compare = func(a, b string) int {
			x, _ := strconv.Atoi(strings.TrimSpace(number.FindString(a)))
			y, _ := strconv.Atoi(strings.TrimSpace(number.FindString(b)))
			if x != y {
				return x - y
			}
			return strings.Compare(a, b)
		}
	}
	slices.SortStableFunc(all, compare)
	if has(given, 'u') {
		all = slices.Compact(all)
	}
	if has(given, 'r') {
		slices.Reverse(all)
	}
	for _, line := range all {
		c.printf("%s\n", line)
	}
	return status
}

func (c *command) sync() int {
	if err := c.life.sync(); err != nil {
		return c.fail("%v", err)
	}
	return 0
}

func (c *command) uname() int {
	given, _ := c.options("")
	release := "6.1.0-sim"
	switch {
	case has(given, 'a'):
		c.printf("Linux %s %s #1 SMP simulated x86_64 GNU/Linux\n", c.life.name(), release)
	case has(given, 'r'):
		c.printf("%s\n", release)
	case has(given, 'n'):
		c.printf("%s\n", c.life.name())
	case has(given, 'm'):
		c.printf("x86_64\n")
	default:
		c.printf("Linux\n")
	}
	return 0
}

func (c *command) uptime() int {
	c.printf(" %s up %d min,  0 users,  load average: 0.00, 0.00, 0.00\n", time.Now().UTC().Format(time.TimeOnly), int(c.life.uptime()/60))
	return 0
}

func (c *command) wc() int {
	given, names := c.options("")
	data, status := c.input(names)
	numbers := map[byte]int{'l': bytes.Count(data, []byte("\n")), 'w': len(bytes.Fields(data)), 'c': len(data)}
	var fields []string
	for _, k := range []byte("lwc") {
		if len(given) == 0 || has(given, k) {
			fields = append(fields, strconv.Itoa(numbers[k]))
		}
	}
	c.printf("%s\n", strings.Join(append(fields, names...), " "))
	return status
}

// builtins are the words of the shell that which knows, too.
var builtins = []string{"cd", "echo", "eval", "exec", "exit", "export", "false", "printf", "pwd", "read", "set", "shift", "test", "trap", "true", "type", "unset", "wait"}

func (c *command) which() int {
	status := 0
	for _, name := range c.args[1:] {
		switch {
		case slices.Contains(builtins, name):
			c.printf("%s\n", name)
		case programs()[name] != nil || name == "sh":
			c.printf("/bin/%s\n", name)
		default:
			status = 1
		}
	}
	return status
}

// serveProc makes the kernel's files.
func (l *life) serveProc() {
	l.files.live = map[string]func() string{
		"/proc/sys/kernel/hostname": func() string { return l.name() + "\n" },
		"/proc/mounts":              l.files.mountTable,
		"/proc/uptime":              func() string { return fmt.Sprintf("%.2f %.2f\n", l.uptime(), l.uptime()) },
		"/proc/version":             func() string { return "Linux version 6.1.0-sim (simulated)\n" },
		"/proc/cmdline":             func() string { return "console=ttyS0\n" },
		"/proc/loadavg":             func() string { return "0.00 0.00 0.00 1/2 42\n" },
		"/proc/meminfo": func() string {
			kib := l.g.spec.Board.MemoryMiB << 10
			return fmt.Sprintf("MemTotal: %14d kB\nMemFree: %15d kB\nMemAvailable: %10d kB\n", kib, kib, kib)
		},
		"/proc/cpuinfo": func() string {
			var b strings.Builder
			for i := range int(l.g.spec.Board.CPUs) {
				fmt.Fprintf(&b, "processor\t: %d\nmodel name\t: simulated\n\n", i)
			}
			return b.String()
		},
	}
	for _, n := range l.nics {
		l.serveSys(n)
	}
}

// serveSys makes what /sys tells of an interface.
func (l *life) serveSys(n *nic) {
	dir := "/sys/class/net/" + n.name
	l.files.own[dir] = &file{Mode: fs.ModeDir | 0o755, Time: l.start}
	locked := func(f func() string) func() string {
		return func() string {
			n.mu.Lock()
			defer n.mu.Unlock()
			return f() + "\n"
		}
	}
	maps.Copy(l.files.live, map[string]func() string{
		dir + "/address":   locked(func() string { return n.mac.String() }),
		dir + "/mtu":       locked(func() string { return strconv.Itoa(n.mtu) }),
		dir + "/operstate": locked(func() string { return strings.ToLower(n.state()) }),
	})
}

// kill is what is left of kill(1) when it is not the shell's own process.
func (c *command) kill() int {
	c.args[0] = "kill"
	return c.fail("no such process: %s", strings.Join(c.args[1:], " "))
}
