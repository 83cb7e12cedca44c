package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// TemplateStore is a store that keeps templates too.
type TemplateStore interface {
	// Templates lists the store's templates, those used last at the end. A
	// damaged one does not hide the others.
	Templates(ctx context.Context) ([]Template, error)
	// Template returns the sound template with a key, and keeps it from being
	// removed until unlock. If there is none, the error is ErrNotFound.
	Template(ctx context.Context, key string) (t Template, unlock func(), err error)
	// CreateTemplate starts a template. Its disk, an empty overlay on its
	// image, waits in the draft under the name TemplateDisk. If another
	// process has made it meanwhile, the error is ErrExists.
	CreateTemplate(ctx context.Context, o TemplateOptions, progress Progress) (*TemplateDraft, error)
	// PruneTemplates removes templates on which nothing stands, those used
	// longest ago first: all that obsolete picks, and then others until all
	// together take at most limit bytes.
	PruneTemplates(ctx context.Context, limit int64, obsolete func(Template) bool) (removed []Template, err error)
	// DistrustTemplate has a template never be found again, because no clone
	// could be made of it. What stands on it stays.
	DistrustTemplate(ctx context.Context, name string) error
}

// Template is a guest that has booted once, so that others need not: an image
// whose disk is as the guest had it at that time, with the guest's memory and
// the state of its devices beside it. It is not listed among images.
type Template struct {
	TemplateOptions
	// Name is for CreateDisk.
	Name string `json:"name"`
	// Dir is the folder of its files.
	Dir string `json:"dir"`
	// Size is what it takes on the host, in bytes.
	Size    int64     `json:"size"`
	Created time.Time `json:"created"`
	// Used is when a disk was last made on it.
	Used time.Time `json:"used"`
	// InUse describes what stands on it.
	InUse []string `json:"in_use,omitempty"`
}

// TemplateOptions say what a template is of.
type TemplateOptions struct {
	// Key identifies all that matters of what it was made of. It is empty for
	// one that turned out to be of no use.
	Key string `json:"key"`
	// Image is the name of its image, Digest that of the image then.
	Image  string `json:"image"`
	Digest string `json:"digest"`
	// VMM identifies what has run it, Version what was done to its guest.
	VMM     string `json:"vmm"`
	Version int    `json:"version"`
	// DiskSize is that of its disk, in bytes.
	DiskSize int64 `json:"disk_size"`
	// Cores, Memory in bytes and Interfaces are those of the machine, for
	// people.
	Cores      int   `json:"cores"`
	Memory     int64 `json:"memory"`
	Interfaces int   `json:"interfaces"`
}

// TemplateDisk is the disk in the folder of a template.
const TemplateDisk = "disk.qcow2"

// templateNote is what an image's record says of a template.
type templateNote struct {
	TemplateOptions
	// Files are the template's files as they were when it was finished:
	// whoever changes one leaves a trace.
	Files map[string]fileTrace `json:"files"`
}

// fileTrace is which file it is, its size, and when it was written.
type fileTrace struct {
	Size    int64     `json:"size"`
	Written time.Time `json:"written"`
	// Inode and Changed are not in what earlier programs have noted. Changed is
	// when the kernel saw anything of it change, which nobody can set back.
	Inode   uint64    `json:"inode,omitempty"`
	Changed time.Time `json:"changed,omitzero"`
}

// same tells whether a file is the one of which was was noted.
func (is fileTrace) same(was fileTrace) bool {
	return is.Size == was.Size && is.Written.Equal(was.Written) && (was.Inode == 0 || is.Inode == was.Inode) &&
		(was.Changed.IsZero() || is.Changed.Equal(was.Changed))
}

func traceOf(path string) (fileTrace, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileTrace{}, err
	}
	trace := fileTrace{Size: info.Size(), Written: info.ModTime().UTC()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		trace.Inode, trace.Changed = st.Ino, time.Unix(st.Ctim.Unix()).UTC()
	}
	return trace, nil
}

// intact tells whether a template's files are as they were.
func (n *templateNote) intact(dir string) error {
	for name, was := range n.Files {
		is, err := traceOf(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if !is.same(was) {
			return fmt.Errorf("%s has changed", filepath.Join(dir, name))
		}
	}
	return nil
}

// templatePrefix begins the names of templates. No image has such a name.
const templatePrefix = ".warm-"

// isTemplate tells templates from images that people know.
func isTemplate(name string) bool { return strings.HasPrefix(name, templatePrefix) }

// validOrTemplate is ValidName for a name that may be a template's.
func validOrTemplate(name string) error {
	if isTemplate(name) {
		return ValidName(strings.TrimPrefix(name, "."))
	}
	return ValidName(name)
}

// templates lists the names of the store's own templates with a key, or of all.
func (s *Files) templates(key string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(globEscape(s.home), "img", templatePrefix+key+"*", recordFile))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(paths))
	for i, path := range paths {
		names[i] = filepath.Base(filepath.Dir(path))
	}
	return names, nil
}

// Templates lists the store's templates, those used last at the end. A damaged
// one does not hide the others: the error then names it.
func (s *Files) Templates(ctx context.Context) ([]Template, error) {
	names, err := s.templates("")
	if err != nil {
		return nil, err
	}
	var all []Template
	var errs []error
	for _, name := range names {
		t, err := s.loadTemplate(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err == nil {
			t.InUse, err = s.usedHere(ctx, t.Dir)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("template %s: %w", s.imageDir(name), err))
			continue
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b Template) int {
		return cmp.Or(a.Used.Compare(b.Used), strings.Compare(a.Name, b.Name))
	})
	return all, errors.Join(errs...)
}

func (s *Files) loadTemplate(name string) (Template, error) {
	t, _, _, err := s.readTemplate(name)
	return t, err
}

// readTemplate returns a template, what is noted of its files, and its image.
func (s *Files) readTemplate(name string) (t Template, note *templateNote, of parentRef, err error) {
	dir := s.imageDir(name)
	path := filepath.Join(dir, recordFile)
	var r record
	if err := readJSON(path, &r); err != nil {
		return t, nil, of, err
	}
	if r.Template == nil || r.Parent == nil {
		return t, nil, of, fmt.Errorf("%s is no template's", path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return t, nil, of, err
	}
	return Template{
		TemplateOptions: r.Template.TemplateOptions, Name: name, Dir: dir,
		Size: allocated(dir), Created: r.Created, Used: info.ModTime(),
	}, r.Template, *r.Parent, nil
}

// Template returns the sound template with a key, and keeps it from being
// removed until unlock.
func (s *Files) Template(ctx context.Context, key string) (t Template, unlock func(), err error) {
	dead, err := s.abandonedWork() // they have the memory of guests
	if err != nil {
		return t, nil, err
	}
	for _, d := range dead {
		_ = d.Remove(ctx)
	}
	names, err := s.templates(key)
	if err != nil {
		return t, nil, err
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return t, nil, err
		}
		l, err := acquire(ctx, s.imageLock(name), false)
		if err != nil {
			return t, nil, err
		}
		if t, err := s.soundTemplate(ctx, name, key); err == nil {
			now := time.Now()
			_ = os.Chtimes(filepath.Join(t.Dir, recordFile), now, now)
			return t, l.release, nil
		}
		l.release()
	}
	return t, nil, &NotFoundError{Name: templatePrefix + key}
}

// soundTemplate returns a template which is what it was when it was made.
func (s *Files) soundTemplate(ctx context.Context, name, key string) (Template, error) {
	t, note, parent, err := s.readTemplate(name)
	if err != nil {
		return Template{}, err
	}
	if t.Key != key {
		return Template{}, fmt.Errorf("%s has another key", t.Dir)
	}
	return t, errors.Join(note.intact(t.Dir), s.verify(ctx, t.Dir, parent))
}

// TemplateDraft is a template in the making.
type TemplateDraft struct {
	*Draft
	options TemplateOptions
	image   Image
	unlock  func()
}

// CreateTemplate starts a template of a key for which there is no sound one. It
// waits for another maker of that template; if that one has made it, the error
// is ErrExists. The caller must end with Discard.
func (s *Files) CreateTemplate(ctx context.Context, o TemplateOptions, progress Progress) (*TemplateDraft, error) {
	d, err := s.createTemplate(ctx, o, progress)
	if err != nil {
		return nil, fmt.Errorf("making a template of image %q: %w", o.Image, explainSpace(err, s.home))
	}
	return d, nil
}

func (s *Files) createTemplate(ctx context.Context, o TemplateOptions, progress Progress) (_ *TemplateDraft, err error) {
	img, unlock, err := s.hold(ctx, o.Image)
	if err != nil {
		return nil, err
	}
	d := &TemplateDraft{options: o, image: img, unlock: unlock}
	defer func() {
		if err != nil {
			d.Discard()
		}
	}()
	// What is damaged goes first; if something stands on it, it stays, and the
	// new one gets another name.
	name := templatePrefix + o.Key
	for n := 1; ; n++ {
		err := s.removeTemplate(ctx, name, func(Template) bool {
			_, err := s.soundTemplate(ctx, name, o.Key)
			return err != nil
		})
		var inUse *InUseError
		if !errors.As(err, &inUse) {
			break
		}
		name = templatePrefix + o.Key + "." + strconv.Itoa(n)
	}
	draft := &Draft{store: s, name: name}
	vacant := func() error { return s.vacant(ctx, name) }
	if err := draft.begin(ctx, s.imageLock(name), vacant, progress); err != nil {
		return nil, err
	}
	d.Draft = draft
	size, err := overlaySize(img, o.DiskSize)
	if err != nil {
		return nil, err
	}
	err = replaceFile(filepath.Join(d.Dir, TemplateDisk), 0o600, func(f *os.File) error {
		return writeOverlay(f, size, img.Disk, img.Format)
	})
	return d, errors.Join(err, os.Chmod(d.Dir, 0o700))
}

// Commit makes the draft a template, with its disk and the files of these
// names. Nobody but the owner can read it: it is the memory of a system.
func (d *TemplateDraft) Commit(files ...string) (Template, error) {
	s := d.store
	files = append(files, TemplateDisk)
	if err := keepOnly(d.Dir, files, 0o600); err != nil {
		return Template{}, err
	}
	parent, err := referTo(d.image)
	if err != nil {
		return Template{}, err
	}
	note := templateNote{d.options, make(map[string]fileTrace)}
	for _, name := range files {
		if note.Files[name], err = traceOf(filepath.Join(d.Dir, name)); err != nil {
			return Template{}, err
		}
	}
	size, err := diskSize(filepath.Join(d.Dir, TemplateDisk), "qcow2")
	if err != nil {
		return Template{}, err
	}
	r := record{
		Version: recordVersion, Name: d.name, Created: time.Now().UTC().Truncate(time.Second),
		Digest: d.image.Digest, DigestOf: d.image.DigestOf, Disk: TemplateDisk, Format: "qcow2", VirtualSize: size,
		Parent: &parent, Console: d.image.Console, OS: d.image.OS, Agent: d.image.Agent,
		Template: &note,
	}
	if err := writeJSON(filepath.Join(d.Dir, recordFile), r, 0o600); err != nil {
		return Template{}, err
	}
	if err := os.Rename(d.Dir, s.imageDir(d.name)); err != nil {
		return Template{}, err
	}
	d.dropWork()
	return s.loadTemplate(d.name)
}

// Discard removes what Commit has not taken.
func (d *TemplateDraft) Discard() {
	if d.Draft != nil {
		d.Draft.Discard()
	}
	d.unlock()
}

// errTemplateBusy says that somebody has a template in his hands right now.
var errTemplateBusy = errors.New("it is being made or used")

// isHeld tells whether a template was not removed because somebody needs it.
func isHeld(err error) bool {
	var inUse *InUseError
	return errors.As(err, &inUse) || errors.Is(err, errTemplateBusy)
}

// removeTemplate removes a template if it is to be, on which nothing stands. If
// something does, the error is an *InUseError.
func (s *Files) removeTemplate(ctx context.Context, name string, when func(Template) bool) error {
	l, busy, err := tryLock(s.imageLock(name))
	if err != nil {
		return err
	}
	dir := s.imageDir(name)
	if busy {
		return errTemplateBusy
	}
	defer l.release()
	t, err := s.loadTemplate(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && !when(t):
		return nil
	}
	by, err := s.usedHere(ctx, dir)
	if err != nil {
		return err
	}
	if len(by) > 0 {
		return &InUseError{Image: name, By: by}
	}
	// Without its record it is gone, whatever happens next.
	if err := os.Remove(filepath.Join(dir, recordFile)); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// PruneTemplates removes templates on which nothing stands, those used longest
// ago first: all that obsolete picks, and then others until all together take
// at most limit bytes.
func (s *Files) PruneTemplates(ctx context.Context, limit int64, obsolete func(Template) bool) (removed []Template, err error) {
	if err := s.tidy(ctx); err != nil {
		return nil, err
	}
	all, err := s.Templates(ctx)
	var total int64
	for _, t := range all {
		total += t.Size
	}
	errs := []error{err}
	prune := func(pick func(Template) bool) {
		all = slices.DeleteFunc(all, func(t Template) bool {
			if ctx.Err() != nil || !pick(t) {
				return false
			}
			err := s.removeTemplate(ctx, t.Name, func(Template) bool { return true })
			if err != nil {
				if !isHeld(err) {
					errs = append(errs, fmt.Errorf("removing the template %s: %w", t.Dir, err))
				}
				return false
			}
			total -= t.Size
			removed = append(removed, t)
			return true
		})
	}
	prune(obsolete)
	prune(func(Template) bool { return total > limit })
	return removed, errors.Join(append(errs, ctx.Err())...)
}

// dropTemplates removes the templates of an image on which nothing stands.
func (s *Files) dropTemplates(ctx context.Context, img Image) error {
	names, err := s.templates("")
	if err != nil {
		return err
	}
	for _, name := range names {
		var r record
		if readJSON(filepath.Join(s.imageDir(name), recordFile), &r) != nil || r.Parent == nil || r.Parent.Dir != img.Dir {
			continue
		}
		err := s.removeTemplate(ctx, name, func(Template) bool { return true })
		if err != nil && !isHeld(err) {
			return err
		}
	}
	return nil
}

// DistrustTemplate has a template never be found again, because no clone could
// be made of it. What stands on it stays.
func (s *Files) DistrustTemplate(ctx context.Context, name string) error {
	path := filepath.Join(s.imageDir(name), recordFile)
	var r record
	if err := readJSON(path, &r); err != nil {
		return err
	}
	if r.Template == nil {
		return fmt.Errorf("%s is no template's", path)
	}
	r.Template.Key = ""
	return writeJSON(path, r, 0o600)
}
