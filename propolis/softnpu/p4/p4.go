package p4

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/falcon-vm/falcon-go/propolis/softnpu/p4/internal/syntax"
)

// Diagnostic is one finding about a program, with its place and the line that it is about.
type Diagnostic = syntax.Diagnostic

// Severity says whether a finding is an error or a warning.
type Severity = syntax.Severity

// The severities.
const (
	Error   = syntax.Error
	Warning = syntax.Warning
)

// Diagnostics are the findings about a program that cannot be used, in the order in which they were made.
type Diagnostics []Diagnostic

// Error shows all findings, each with its line.
func (d Diagnostics) Error() string {
	parts := make([]string, len(d))
	for i, x := range d {
		parts[i] = x.String()
	}
	return strings.Join(parts, "\n")
}

// Source says where a program comes from.
type Source struct {
	// FS holds the program and the files that it includes by a name without a folder.
	FS fs.FS
	// Name is the path of the program in FS.
	Name string
	// Include are places that are searched for included files.
	Include []fs.FS
	// Defines are macros that are set before the first line.
	Defines map[string]string
}

// Files is the source of a program that is at hand as text: its files by their names.
func Files(name string, files map[string]string) Source {
	return Source{FS: texts(files), Name: name}
}

// Compile makes a program of its source. If it cannot be used the error is of type [Diagnostics].
func Compile(src Source) (*Program, error) {
	rep := &syntax.Report{}
	decls, prelude := parse(src, rep)
	c := newCompiler(rep)
	if !rep.Failed() {
		c.declareGlobals(c.global.parent, prelude)
		p := c.program(decls)
		rep.Sort()
		if !rep.Failed() {
			p.warnings = rep.List
			return p, nil
		}
	}
	return nil, Diagnostics(rep.List)
}

// CompileFile makes a program of the file at a path. Files that it includes are looked for in the include folders, and next
// to the file that asks for them.
func CompileFile(path string, include ...string) (*Program, error) {
	return Compile(fileSource(path, include))
}

func fileSource(path string, include []string) Source {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	src := Source{FS: folder(dir), Name: name}
	for _, i := range include {
		src.Include = append(src.Include, folder(i))
	}
	return src
}

// ReadFiles returns the texts of the file at a path and of the files next to it that it includes, by the names that [Files]
// wants, for it to be compiled elsewhere. It is compiled here too: if it cannot be used the error is of type [Diagnostics].
func ReadFiles(path string) (name string, files map[string]string, err error) {
	src := fileSource(path, nil)
	read := recorder{src.FS, map[string]string{}}
	_, err = Compile(Source{FS: read, Name: src.Name})
	return src.Name, read.files, err
}

// recorder is a file system that keeps what is read of it.
type recorder struct {
	fs.FS
	files map[string]string
}

func (r recorder) Open(name string) (fs.File, error) {
	text, err := fs.ReadFile(r.FS, name)
	if err != nil {
		return nil, err
	}
	r.files[name] = string(text)
	return texts(r.files).Open(name)
}

// Path is where a file is, which is how findings name it.
func (r recorder) Path(name string) string {
	if p, ok := r.FS.(interface{ Path(string) string }); ok {
		return p.Path(name)
	}
	return name
}

// folder is a folder of the host as a file system. Unlike that of [os.DirFS] it lets an included file be outside, since
// programs include "../headers.p4".
type folder string

func (f folder) Open(name string) (fs.File, error) { return os.Open(f.Path(name)) }

// Path is where a file of the folder is, which is how findings name it.
func (f folder) Path(name string) string { return filepath.Join(string(f), filepath.FromSlash(name)) }

func parse(src Source, rep *syntax.Report) (decls, prelude []syntax.Decl) {
	pre := syntax.Preprocess(syntax.Source{FS: Files("<built in>", map[string]string{"<built in>": preludeText}).FS, Name: "<built in>"}, rep)
	prelude = syntax.Parse(pre, rep)
	toks := syntax.Preprocess(syntax.Source{FS: src.FS, Name: src.Name, Include: src.Include, BuiltIn: builtIn, Defines: src.Defines}, rep)
	return syntax.Parse(toks, rep), prelude
}

func newCompiler(rep *syntax.Report) *compiler {
	return &compiler{
		rep:     rep,
		global:  &scope{parent: &scope{body: &body{}}, body: &body{}},
		errors:  &typ{kind: kindError, name: "error", width: 32, size: 1, members: append([]string(nil), builtinErrors...)},
		constAt: map[string]int{},
		active:  map[syntax.Decl]bool{},
		checked: map[syntax.Decl]bool{},
	}
}

// texts is a file system of texts.
type texts map[string]string

func (t texts) Open(name string) (fs.File, error) {
	text, ok := t[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &textFile{name: name, Reader: strings.NewReader(text)}, nil
}

// textFile is an open text, and what is known of it.
type textFile struct {
	*strings.Reader
	name string
}

func (f *textFile) Stat() (fs.FileInfo, error) { return textInfo{f}, nil }
func (f *textFile) Close() error               { return nil }

type textInfo struct{ f *textFile }

func (i textInfo) Name() string       { return i.f.name }
func (i textInfo) Size() int64        { return i.f.Size() }
func (i textInfo) Mode() fs.FileMode  { return 0o444 }
func (i textInfo) ModTime() time.Time { return time.Time{} }
func (i textInfo) IsDir() bool        { return false }
func (i textInfo) Sys() any           { return nil }
