package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test binary is zfs and zpool as well, when it is called by these names. It
// is a model of the commands as far as the store uses them: it keeps datasets in
// a file, volumes as sparse files, and answers in the words and columns of
// OpenZFS 2.1, which were noted down from the real commands.

func TestMain(m *testing.M) {
	switch name := filepath.Base(os.Args[0]); name {
	case "zfs", "zpool":
		os.Exit(modelMain(name, os.Args[1:]))
	}
	os.Exit(runTests(m))
}

// modelBinary is what the model's programs are: the test binary, or where that
// looks for races, and so takes long to start, one that does not.
var modelBinary = sync.OnceValues(func() (string, error) {
	info, ok := debug.ReadBuildInfo()
	if !ok || !slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return os.Executable()
	}
	path := filepath.Join(modelDir, "model")
	if out, err := exec.Command("go", "test", "-c", "-o", path).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the model: %w\n%s", err, out)
	}
	return path, nil
})

// modelDir is a folder that goes with the tests.
var modelDir string

func runTests(m *testing.M) int {
	var err error
	if modelDir, err = os.MkdirTemp("", "model-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(modelDir)
	return m.Run()
}

// modelEnv names the folder of the model's state.
const modelEnv = "FALCON_ZFS_MODEL"

// modelSpace is the size of the model's pool, which is called tank.
const modelSpace = 8 << 30

type modelSnapshot struct {
	Name, GUID string
	Size       int64
}

type modelDataset struct {
	Kind, GUID string
	Size       int64
	Block      int64
	Origin     string // GUID of a snapshot
	Props      map[string]string
	Snapshots  []modelSnapshot // oldest first
}

type model struct {
	dir      string
	hang     bool
	Next     int
	Datasets map[string]*modelDataset
}

// modelFault is a failure that is to come.
type modelFault struct {
	Verb string
	// Nth call of that verb fails, counted from 1, and those after it as long
	// as Times lasts.
	Nth, Times int
	// After has the command do its work first. Hang has it then not end.
	After, Hang bool
	Says        string
}

// refusal is what the model says on its standard error.
type refusal string

func (r refusal) Error() string { return string(r) }

func modelMain(program string, args []string) int {
	dir := os.Getenv(modelEnv)
	l, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = syscall.Flock(int(l.Fd()), syscall.LOCK_EX)
	}
	m := &model{dir: dir, Datasets: map[string]*modelDataset{"tank": {Kind: "filesystem", GUID: "1", Props: map[string]string{}}}, Next: 2}
	if err == nil {
		if err = readJSON(filepath.Join(dir, "state"), m); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	var out string
	if err == nil && len(args) > 0 {
		out, err = m.run(program, args)
	}
	if err == nil || errors.As(err, new(refusal)) {
		err = errors.Join(err, m.save())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if m.hang {
		_ = os.WriteFile(filepath.Join(dir, "hangs"), nil, 0o600)
		_ = l.Close() // others may go on
		time.Sleep(time.Minute)
	}
	fmt.Print(out)
	return 0
}

// save writes the state, which no loss of power has to be survived by.
func (m *model) save() error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.dir, "state"), data, 0o600)
}

func (m *model) run(program string, args []string) (string, error) {
	verb, rest := args[0], args[1:]
	if err := m.note(args); err != nil {
		return "", err
	}
	says, after, err := m.fault(verb)
	if err != nil {
		return "", err
	}
	if says != "" && !after {
		return "", refusal(says)
	}
	var out string
	switch {
	case program == "zpool" && verb == "get":
		out, err = m.pool(rest)
	case program == "zfs":
		out, err = m.zfs(verb, rest)
	default:
		err = refusal("unrecognized command '" + verb + "'")
	}
	if says != "" {
		return "", errors.Join(refusal(says), err)
	}
	return out, err
}

// note writes down a command for tests that look at them.
func (m *model) note(args []string) error {
	f, err := os.OpenFile(filepath.Join(m.dir, "commands"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, strings.Join(args, " "))
	return errors.Join(err, f.Close())
}

// fault returns what a command is to say if it is to fail, and whether it does
// its work before.
func (m *model) fault(verb string) (says string, after bool, err error) {
	path := filepath.Join(m.dir, "fault")
	var f modelFault
	if err := readJSON(path, &f); errors.Is(err, os.ErrNotExist) || f.Verb != verb || f.Times == 0 {
		return "", false, nil
	} else if err != nil {
		return "", false, err
	}
	if f.Nth > 1 {
		f.Nth--
		return "", false, writeJSON(path, f, 0o600)
	}
	f.Times--
	m.hang = f.Hang
	return f.Says, f.After, writeJSON(path, f, 0o600)
}

func (m *model) pool(args []string) (string, error) {
	if len(args) != 3 || args[0] != "-Hp" {
		return "", refusal("usage: zpool get")
	}
	if args[2] != "tank" {
		return "", refusal(fmt.Sprintf("cannot open '%s': no such pool", args[2]))
	}
	var out strings.Builder
	for _, p := range strings.Split(args[1], ",") {
		value := map[string]string{"name": "tank", "health": "ONLINE", "readonly": "off", "dedupratio": "1.00"}[p]
		if value == "" {
			value = "0"
		}
		fmt.Fprintf(&out, "tank\t%s\t%s\t-\n", p, value)
	}
	return out.String(), nil
}

// modelArgs are the arguments of a command, taken apart.
type modelArgs struct {
	props map[string]string
	flags map[string]string
	names []string
}

func parseModelArgs(verb string, args []string) modelArgs {
	a := modelArgs{props: map[string]string{}, flags: map[string]string{}}
	valued := map[string]string{"create": "oV", "clone": "o", "get": "tods", "list": "tod"}[verb]
	for i := 0; i < len(args); i++ {
		word := args[i]
		key, value, isProp := strings.Cut(word, "=")
		switch {
		case verb == "set" && isProp:
			a.props[key] = value
		case !strings.HasPrefix(word, "-"):
			a.names = append(a.names, word)
		case len(word) == 2 && strings.Contains(valued, word[1:]):
			i++
			key, value, isProp = strings.Cut(args[i], "=")
			if word == "-o" && isProp {
				a.props[key] = value
			} else {
				a.flags[word[1:]] = args[i]
			}
		default:
			for _, c := range word[1:] {
				a.flags[string(c)] = "set"
			}
		}
	}
	return a
}

func (m *model) zfs(verb string, args []string) (string, error) {
	a := parseModelArgs(verb, args)
	last := a.names[len(a.names)-1]
	switch verb {
	case "create":
		return "", m.create(last, a)
	case "clone":
		return "", m.clone(a.names[0], last, a)
	case "snapshot":
		return "", m.snapshot(last)
	case "promote":
		return "", m.promote(last)
	case "set":
		d := m.Datasets[last]
		if d == nil {
			return "", refusal(fmt.Sprintf("cannot open '%s': dataset does not exist", last))
		}
		return "", m.set(last, d, a.props)
	case "destroy":
		return "", m.destroy(last, a.flags["r"] != "")
	case "get":
		return m.get(last, strings.Split(a.names[0], ","), a.flags["r"] != "")
	case "list":
		return m.list(last)
	}
	return "", refusal("unrecognized command '" + verb + "'")
}

func (m *model) guid() string {
	m.Next++
	return strconv.Itoa(100000 + m.Next)
}

// device is the file that a volume is.
func (m *model) device(name string) string { return filepath.Join(m.dir, "dev", name) }

// held is the file of what a snapshot holds.
func (m *model) held(guid string) string { return filepath.Join(m.dir, "held", guid) }

func (m *model) add(name string, d *modelDataset) error {
	pool, _, _ := strings.Cut(name, "/")
	switch {
	case m.Datasets[pool] == nil:
		return refusal(fmt.Sprintf("cannot open '%s': no such pool", pool))
	case m.Datasets[filepath.Dir(name)] == nil:
		return refusal(fmt.Sprintf("cannot create '%s': parent does not exist", name))
	case m.Datasets[name] != nil:
		return refusal(fmt.Sprintf("cannot create '%s': dataset already exists", name))
	}
	d.GUID = m.guid()
	m.Datasets[name] = d
	if d.Kind != "volume" {
		return nil
	}
	return os.MkdirAll(filepath.Dir(m.device(name)), 0o700)
}

func (m *model) create(name string, a modelArgs) error {
	d := &modelDataset{Kind: "filesystem", Props: map[string]string{}}
	if a.flags["V"] != "" {
		size, err := strconv.ParseInt(a.flags["V"], 10, 64)
		if err != nil {
			return refusal("bad volume size '" + a.flags["V"] + "'")
		}
		block, _ := strconv.ParseInt(a.props["volblocksize"], 10, 64)
		if block == 0 {
			block = 8192
		}
		if size == 0 || size%block != 0 {
			return refusal(fmt.Sprintf("cannot create '%s': volume size must be a multiple of volume block size", name))
		}
		if _, ok := a.props["refreservation"]; !ok && size > modelSpace {
			return refusal(fmt.Sprintf("cannot create '%s': out of space", name))
		}
		d = &modelDataset{Kind: "volume", Size: size, Block: block, Props: map[string]string{}}
	}
	delete(a.props, "volblocksize")
	if err := m.add(name, d); err != nil {
		return err
	}
	maps.Copy(d.Props, a.props)
	if d.Kind == "volume" {
		return errors.Join(os.WriteFile(m.device(name), nil, 0o600), os.Truncate(m.device(name), d.Size))
	}
	return nil
}

// find returns a snapshot with its volume.
func (m *model) find(name string) (*modelDataset, int) {
	volume, snapshot, _ := strings.Cut(name, "@")
	d := m.Datasets[volume]
	if d == nil {
		return nil, -1
	}
	return d, slices.IndexFunc(d.Snapshots, func(s modelSnapshot) bool { return s.Name == snapshot })
}

// locate returns the volume that a snapshot belongs to.
func (m *model) locate(guid string) (name string, at int) {
	for name, d := range m.Datasets {
		if i := slices.IndexFunc(d.Snapshots, func(s modelSnapshot) bool { return s.GUID == guid }); i >= 0 {
			return name, i
		}
	}
	return "", -1
}

func (m *model) clone(from, name string, a modelArgs) error {
	d, i := m.find(from)
	if i < 0 {
		return refusal(fmt.Sprintf("cannot open '%s': dataset does not exist", from))
	}
	s := d.Snapshots[i]
	clone := &modelDataset{Kind: "volume", Size: s.Size, Block: d.Block, Origin: s.GUID, Props: map[string]string{}}
	if err := m.add(name, clone); err != nil {
		return err
	}
	return errors.Join(copyFile(m.held(s.GUID), m.device(name)), m.set(name, clone, a.props))
}

func (m *model) snapshot(name string) error {
	volume, short, _ := strings.Cut(name, "@")
	d, i := m.find(name)
	if d == nil {
		return refusal(fmt.Sprintf("cannot open '%s': dataset does not exist\nusage:\n\tsnapshot [-r] ...", volume))
	}
	if i >= 0 {
		return refusal(fmt.Sprintf("cannot create snapshot '%s': dataset already exists", name))
	}
	s := modelSnapshot{Name: short, GUID: m.guid(), Size: d.Size}
	d.Snapshots = append(d.Snapshots, s)
	if d.Kind != "volume" {
		return nil
	}
	return errors.Join(os.MkdirAll(filepath.Dir(m.held(s.GUID)), 0o700), copyFile(m.device(volume), m.held(s.GUID)))
}

func (m *model) promote(name string) error {
	d := m.Datasets[name]
	if d == nil {
		return refusal(fmt.Sprintf("cannot open '%s': dataset does not exist", name))
	}
	if d.Origin == "" {
		return refusal(fmt.Sprintf("cannot promote '%s': not a cloned filesystem", name))
	}
	parent, i := m.locate(d.Origin)
	p := m.Datasets[parent]
	moved := slices.Clone(p.Snapshots[:i+1])
	for _, s := range moved {
		if slices.ContainsFunc(d.Snapshots, func(own modelSnapshot) bool { return own.Name == s.Name }) {
			return refusal(fmt.Sprintf("cannot promote '%s': snapshot name collision", name))
		}
	}
	d.Snapshots = append(moved, d.Snapshots...)
	p.Snapshots = slices.Clone(p.Snapshots[i+1:])
	d.Origin, p.Origin = p.Origin, d.Origin
	return nil
}

func (m *model) set(name string, d *modelDataset, props map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(props)) {
		value := props[key]
		if key == "reservation" {
			if n, _ := strconv.ParseInt(value, 10, 64); n > modelSpace {
				return refusal(fmt.Sprintf("cannot set property for '%s': size is greater than available space", name))
			}
		}
		if key != "volsize" {
			d.Props[key] = value
			continue
		}
		size, err := strconv.ParseInt(value, 10, 64)
		if err != nil || size%d.Block != 0 {
			return refusal(fmt.Sprintf("cannot set property for '%s': 'volsize' must be a multiple of volume block size (4K)", name))
		}
		d.Size = size
		if err := os.Truncate(m.device(name), size); err != nil {
			return err
		}
	}
	return nil
}

// clones returns the names of all datasets that stand on snapshots.
func (m *model) clones(snapshots []modelSnapshot) []string {
	var all []string
	for name, d := range m.Datasets {
		if slices.ContainsFunc(snapshots, func(s modelSnapshot) bool { return s.GUID == d.Origin }) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

func (m *model) destroy(name string, recursive bool) error {
	d, i := m.find(name)
	if d == nil {
		return refusal(fmt.Sprintf("cannot open '%s': dataset does not exist", name))
	}
	if strings.Contains(name, "@") {
		if i < 0 {
			return refusal("could not find any snapshots to destroy; check snapshot names.")
		}
		if c := m.clones(d.Snapshots[i : i+1]); len(c) > 0 {
			return refusal(fmt.Sprintf("cannot destroy '%s': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\n%s", name, strings.Join(c, "\n")))
		}
		d.Snapshots = slices.Delete(d.Snapshots, i, i+1)
		return nil
	}
	var below []string
	for other := range m.Datasets {
		if strings.HasPrefix(other, name+"/") {
			below = append(below, other)
		}
	}
	if (len(below) > 0 || len(d.Snapshots) > 0) && !recursive {
		return refusal(fmt.Sprintf("cannot destroy '%s': %s has children\nuse '-r' to destroy the following datasets:\n%s", name, d.Kind, strings.Join(below, "\n")))
	}
	for _, gone := range append(below, name) {
		if c := m.clones(m.Datasets[gone].Snapshots); len(c) > 0 {
			return refusal(fmt.Sprintf("cannot destroy '%s': %s has dependent clones\nuse '-R' to destroy the following datasets:\n%s", name, d.Kind, strings.Join(c, "\n")))
		}
	}
	for _, gone := range append(below, name) {
		if m.Datasets[gone].Kind == "volume" {
			if err := os.Remove(m.device(gone)); err != nil {
				return err
			}
		}
		delete(m.Datasets, gone)
	}
	return nil
}

func (m *model) get(root string, props []string, deep bool) (string, error) {
	if m.Datasets[root] == nil {
		return "", refusal(fmt.Sprintf("cannot open '%s': dataset does not exist", root))
	}
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(m.Datasets)) {
		rest, below := strings.CutPrefix(name, root+"/")
		if name != root && (!below || !deep && strings.Contains(rest, "/")) {
			continue
		}
		d := m.Datasets[name]
		for _, p := range props {
			value, source := m.value(name, d, p)
			fmt.Fprintf(&out, "%s\t%s\t%s\t%s\n", name, p, value, source)
		}
		if !deep && name != root {
			continue
		}
		for _, s := range d.Snapshots {
			for _, p := range props {
				value, source := m.value(name, d, p)
				if source == "local" && strings.Contains(p, ":") {
					source = "inherited from " + name
				}
				if p == "type" {
					value = "snapshot"
				}
				fmt.Fprintf(&out, "%s@%s\t%s\t%s\t%s\n", name, s.Name, p, value, source)
			}
		}
	}
	return out.String(), nil
}

func (m *model) value(name string, d *modelDataset, property string) (value, source string) {
	switch property {
	case "type":
		return d.Kind, "-"
	case "guid":
		return d.GUID, "-"
	case "creation":
		return "1795326013", "-"
	case "used":
		return "12288", "-"
	case "volsize":
		if d.Kind == "volume" {
			return strconv.FormatInt(d.Size, 10), "local"
		}
	case "volblocksize":
		if d.Kind == "volume" {
			return strconv.FormatInt(d.Block, 10), "-"
		}
	case "origin":
		if owner, i := m.locate(d.Origin); i >= 0 {
			return owner + "@" + m.Datasets[owner].Snapshots[i].Name, "-"
		}
	default:
		for at := name; at != "."; at = filepath.Dir(at) {
			value, ok := m.Datasets[at].Props[property]
			switch {
			case ok && at == name:
				return value, "local"
			case ok:
				return value, "inherited from " + at
			}
		}
	}
	return "-", "-"
}

// list answers zfs list -H -r -t all -o name.
func (m *model) list(root string) (string, error) {
	if m.Datasets[root] == nil {
		return "", refusal(fmt.Sprintf("cannot open '%s': dataset does not exist", root))
	}
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(m.Datasets)) {
		if name != root && !strings.HasPrefix(name, root+"/") {
			continue
		}
		fmt.Fprintln(&out, name)
		for _, s := range m.Datasets[name].Snapshots {
			fmt.Fprintln(&out, name+"@"+s.Name)
		}
	}
	return out.String(), nil
}

// copyFile copies a file with its holes.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = copySparse(out, io.Reader(in))
	return errors.Join(err, out.Close())
}

// setFault has the model fail at a command to come.
func setFault(t *testing.T, f modelFault) {
	t.Helper()
	f.Times = max(f.Times, 1)
	data, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(os.Getenv(modelEnv), "fault"), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// newModel puts a model's zfs and zpool into PATH, and returns its state folder.
func newModel(t *testing.T) string {
	t.Helper()
	dir, bin := t.TempDir(), t.TempDir()
	self, err := modelBinary()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"zfs", "zpool"} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv(modelEnv, dir)
	return dir
}
