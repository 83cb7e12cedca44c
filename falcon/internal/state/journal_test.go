package state

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/falcon-vm/falcon-go/falcon/internal/process"
)

// model says what stands after some entries, in another way than the journal:
// it looks for the last word on each object.
func model(entries []entry) []Object {
	standing := []Object{}
	for i, e := range entries {
		same := func(other entry) bool { return other.Object.key() == e.Object.key() }
		// Its place is that of the first make after the last gone.
		start := 0
		for k, other := range entries {
			if same(other) && other.Op == opGone {
				start = k + 1
			}
		}
		if i < start || e.Op != opMake || slices.ContainsFunc(entries[start:i], same) {
			continue
		}
		last := e.Object
		for _, other := range entries[i:] {
			if same(other) {
				last = other.Object
			}
		}
		standing = append(standing, last)
	}
	return standing
}

func genEntry() *rapid.Generator[entry] {
	return rapid.Custom(func(t *rapid.T) entry {
		o := Object{
			Kind: rapid.SampledFrom([]Kind{Disk, Server, Server}).Draw(t, "kind"),
			// Few names, so that objects are made again and go; names
			// that the encoding has to escape.
			Name: rapid.SampledFrom([]string{"violin", "", "a\n\"}ä"}).Draw(t, "name"),
		}
		op := rapid.SampledFrom([]string{opMake, opMake, opGone}).Draw(t, "op")
		if op == opMake && o.Kind == Server && rapid.Bool().Draw(t, "started") {
			o.Process = &process.Identity{PID: rapid.IntRange(1, 1<<22).Draw(t, "pid"), Start: rapid.Uint64().Draw(t, "start"), Boot: "boot"}
		}
		return entry{op, o}
	})
}

func write(j *Journal, entries []entry) error {
	for _, e := range entries {
		act := j.Make
		if e.Op == opGone {
			act = j.Gone
		}
		if err := act(e.Object); err != nil {
			return err
		}
	}
	return nil
}

// sameObjects takes an empty list and none for the same.
func sameObjects(a, b []Object) bool { return len(a) == 0 && len(b) == 0 || cmp.Equal(a, b) }

func TestJournalCutAnywhereHoldsItsWholeEntries(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		path, err := os.MkdirTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		f := &Folder{path: path}
		entries := rapid.SliceOfN(genEntry(), 0, 8).Draw(t, "entries")
		j, err := f.Journal()
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		if err := write(j, entries); err != nil {
			t.Fatal(err)
		}
		if got, want := j.Standing(), model(entries); !sameObjects(got, want) {
			t.Fatalf("the journal lists %+v, want %+v", got, want)
		}
		data, err := os.ReadFile(f.File(JournalFile))
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(data) + 1 {
			whole := bytes.Count(data[:n], []byte("\n"))
			got, _, bad := replay(data[:n])
			if want := model(entries[:whole]); bad != nil || !sameObjects(got.objects(), want) {
				t.Fatalf("cut after %d of %d bytes it lists %+v (%v), want %+v", n, len(data), got, bad, want)
			}
		}
		cut := rapid.IntRange(0, len(data)).Draw(t, "cut")
		more := rapid.SliceOfN(genEntry(), 1, 3).Draw(t, "more")
		goesOn(t, f, entries[:bytes.Count(data[:cut], []byte("\n"))], data[:cut], more)
	})
}

// goesOn checks that a journal that was cut off goes on.
func goesOn(t *rapid.T, f *Folder, whole []entry, data []byte, more []entry) {
	if err := os.WriteFile(f.File(JournalFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Standing(); err != nil || !sameObjects(got, model(whole)) {
		t.Fatalf("the folder lists %+v (%v), want %+v", got, err, model(whole))
	}
	j, err := f.Journal()
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := write(j, more); err != nil {
		t.Fatal(err)
	}
	want := model(append(slices.Clone(whole), more...))
	if got := j.Standing(); !sameObjects(got, want) {
		t.Fatalf("going on it lists %+v, want %+v", got, want)
	}
	if got, err := f.Standing(); err != nil || !sameObjects(got, want) {
		t.Fatalf("read again it lists %+v (%v), want %+v", got, err, want)
	}
}

func TestJournalNamesTheDamagedLineAndGoesOn(t *testing.T) {
	line := func(e entry) string {
		data, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return string(data) + "\n"
	}
	good := line(entry{opMake, Object{Kind: Disk, Name: "violin"}})
	for name, bad := range map[string]string{
		"cut short":          good[:len(good)/2] + "\n",
		"two in one":         strings.TrimSpace(good) + good,
		"zeroes":             strings.Repeat("\x00", 20) + "\n",
		"empty":              "\n",
		"another document":   "[1]\n",
		"no object":          "null\n",
		"unknown operation":  line(entry{"mbke", Object{Kind: Disk, Name: "violin"}}),
		"operation of later": line(entry{"moved", Object{Kind: Disk, Name: "violin"}}),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFolder(t)
			content := []byte(good + bad + good)
			if err := os.WriteFile(f.File(JournalFile), content, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := f.Standing()
			if err == nil || !strings.Contains(err.Error(), "line 2 ") || !strings.Contains(err.Error(), f.File(JournalFile)) {
				t.Errorf("error %v does not name line 2 of %s", err, f.File(JournalFile))
			}
			j, err := f.Journal()
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close()
			for _, objects := range [][]Object{got, j.Standing()} {
				if len(objects) != 1 || objects[0].Name != "violin" {
					t.Errorf("the other lines say %v, want the disk of violin", objects)
				}
			}
			if after, err := os.ReadFile(f.File(JournalFile)); err != nil || !bytes.Equal(after, content) {
				t.Errorf("opening the damaged journal changed it to %q (%v)", after, err)
			}
		})
	}
}

func TestJournalThatIsNotThereListsNothing(t *testing.T) {
	f := newFolder(t)
	if got, err := f.Standing(); len(got) > 0 || err != nil {
		t.Errorf("it lists %v (%v)", got, err)
	}
	if left := entriesOf(t, f.Path()); len(left) > 0 {
		t.Errorf("looking at it made %q", left)
	}
}

func TestJournalListsAreTheCallersOwn(t *testing.T) {
	f := newFolder(t)
	j, err := f.Journal()
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	entries := []entry{{opMake, Object{Kind: Disk, Name: "violin"}}, {opMake, Object{Kind: Disk, Name: "piano"}}}
	if err := write(j, entries); err != nil {
		t.Fatal(err)
	}
	before := j.Standing()
	want := slices.Clone(before)
	if err := j.Gone(before[0]); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, before); diff != "" {
		t.Errorf("a list changed under its reader (-want +got):\n%s", diff)
	}
}

func TestJournalIsWrittenByManyAtOnce(t *testing.T) {
	f := newFolder(t)
	j, err := f.Journal()
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	const writers = 8
	done := make(chan error, writers)
	for i := range writers {
		go func() {
			o := Object{Kind: Disk, Name: fmt.Sprint("node", i)}
			err := errors.Join(j.Make(o), j.Gone(o), j.Make(o))
			_ = j.Standing()
			done <- err
		}()
	}
	for range writers {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	got, err := f.Standing()
	if err != nil || len(got) != writers {
		t.Errorf("the file lists %d objects (%v), want %d", len(got), err, writers)
	}
	if diff := cmp.Diff(j.Standing(), got); diff != "" {
		t.Errorf("memory and file differ (-memory +file):\n%s", diff)
	}
}

// Commands on different nodes have the journal open at once.
func TestJournalIsSharedByCommands(t *testing.T) {
	f := newFolder(t)
	var journals []*Journal
	for range 2 {
		j, err := f.Journal()
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		journals = append(journals, j)
	}
	violin, piano, drum := Object{Kind: Server, Name: "violin"}, Object{Kind: Server, Name: "piano"}, Object{Kind: Server, Name: "drum"}
	if err := errors.Join(journals[0].Make(violin), journals[1].Make(piano), journals[0].Gone(violin)); err != nil {
		t.Fatal(err)
	}
	// A third command is killed in the middle of its entry.
	file, err := os.OpenFile(f.File(JournalFile), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = file.WriteString(`{"op":"make","obj`)
	if err := errors.Join(err, file.Close(), journals[1].Make(drum)); err != nil {
		t.Fatal(err)
	}
	got, err := f.Standing()
	if diff := cmp.Diff([]Object{piano, drum}, got); diff != "" || err != nil {
		t.Errorf("the journal lists, error %v (-want +got):\n%s", err, diff)
	}
}

func TestJournalRemoveLeavesNoFile(t *testing.T) {
	f := newFolder(t)
	j, err := f.Journal()
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := j.Make(Object{Kind: Disk, Name: "violin"}); err == nil {
		t.Error("a removed journal was written to")
	}
	if left := entriesOf(t, f.Path()); len(left) > 0 {
		t.Errorf("it leaves %q", left)
	}
}

// The undoing of what a full disk has stopped goes on in the same journal.
func TestJournalGoesOnAfterAnEntryThatDidNotFit(t *testing.T) {
	f := newFolder(t)
	cmd, _ := startHelper(t, "full", f)
	end := make(chan error, 1)
	go func() { end <- cmd.Wait() }()
	if err := within(t, "the helper that meets a full disk", end); err != nil {
		t.Fatal(err)
	}
	want := []Object{{Kind: Links, Name: "before"}, {Kind: Disk, Name: "after"}}
	got, err := f.Standing()
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("the journal lists, error %v (-want +got):\n%s", err, diff)
	}
}

// meetFullDisk takes the lock and writes entries of which one does not fit. A
// limit on the size of files cuts it short as a full disk does.
func meetFullDisk(folder string) error {
	f, err := Open(folder)
	if err != nil {
		return err
	}
	j, err := f.Journal()
	if err != nil {
		return err
	}
	if err := write(j, []entry{{opMake, Object{Kind: Links, Name: "before"}}, {opMake, Object{Kind: Disk, Name: "undone"}}}); err != nil {
		return err
	}
	info, err := os.Stat(f.File(JournalFile))
	if err != nil {
		return err
	}
	signal.Ignore(unix.SIGXFSZ)
	err = withFileLimit(1, func() error {
		_, err := f.Lock(context.Background(), "destroy", nil)
		return err
	})
	if err != nil {
		return err
	}
	err = withFileLimit(uint64(info.Size())+10, func() error { return j.Make(Object{Kind: Server, Name: "did not fit"}) })
	if err == nil {
		return errors.New("an entry was written beyond the limit")
	}
	if err := j.Gone(Object{Kind: Disk, Name: "undone"}); err != nil {
		return err
	}
	return j.Make(Object{Kind: Disk, Name: "after"})
}

// withFileLimit runs do while no file can grow beyond a size.
func withFileLimit(size uint64, do func() error) error {
	var room unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &room); err != nil {
		return err
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: room.Max}); err != nil {
		return err
	}
	err := do()
	return errors.Join(err, unix.Setrlimit(unix.RLIMIT_FSIZE, &room))
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"op":"make","object":{"kind":"disk","name":"violin"}}` + "\n"))
	f.Add([]byte(`{"op":"make","object":{"kind":"server","name":"a","process":{"pid":1,"start":2,"boot":"b"}}}` + "\n" +
		`{"op":"gone","object":{"kind":"server","name":"a"}}` + "\n" + `{"op":"make","obj`))
	f.Add([]byte("null\n{}\n"))
	f.Add([]byte{0, 0, '\n'})
	f.Fuzz(func(t *testing.T, data []byte) {
		standing, whole, err := replay(data)
		if err != nil {
			return
		}
		if whole > len(data) || whole > 0 && data[whole-1] != '\n' || bytes.IndexByte(data[whole:], '\n') >= 0 {
			t.Fatalf("%d of %d bytes are not its whole lines", whole, len(data))
		}
		var again []byte
		for _, o := range standing.objects() {
			line, err := json.Marshal(entry{opMake, o})
			if err != nil {
				t.Fatal(err)
			}
			again = append(append(again, line...), '\n')
		}
		got, n, err := replay(again)
		if err != nil || n != len(again) || !sameObjects(got.objects(), standing.objects()) {
			t.Fatalf("written again it lists %+v (%v), want %+v", got, err, standing)
		}
	})
}
