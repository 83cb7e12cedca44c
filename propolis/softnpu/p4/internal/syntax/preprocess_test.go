package syntax

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

func files(m map[string]string) fs.FS {
	out := fstest.MapFS{}
	for n, t := range m {
		out[n] = &fstest.MapFile{Data: []byte(t)}
	}
	return out
}

// What remains of a program, its words with a blank between.
func TestPreprocess(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		// include are the include folders.
		include []map[string]string
		builtIn map[string]string
		defines map[string]string
		want    string
		err     string
	}{
		{name: "comments and joined lines", files: map[string]string{"m": "a // b\n/* c\n d */ e\\\nf"}, want: "a e f"},
		{name: "an included file stands where it is asked for", files: map[string]string{"m": "a\n#include \"b\"\nc", "b": "b"}, want: "a b c"},
		{name: "a file is included once", files: map[string]string{"m": "#include \"b\"\n#include <b>\n#include \"c\"\nm", "b": "b", "c": "#include \"b\"\n#include \"m\"\nc"}, want: "b c m"},
		{name: "a file in a folder includes its neighbour", files: map[string]string{"m": "#include \"d/b\"\nm", "d/b": "#include \"c\"\nb", "d/c": "c"}, want: "c b m"},
		{name: "a file in a folder includes from where the program is", files: map[string]string{"m": "#include \"d/b\"\nm", "d/b": "#include <e/c>\nb", "e/c": "c"}, want: "c b m"},
		{name: "a file above", files: map[string]string{"d/m": "#include \"../b\"\nm", "b": "b"}, want: "b m"},
		{name: "include folders come first for <>", files: map[string]string{"m": "#include <b>\nm", "b": "near"}, include: []map[string]string{{"b": "far"}}, want: "far m"},
		{name: "the neighbour comes first for quotes", files: map[string]string{"m": "#include \"b\"\nm", "b": "near"}, include: []map[string]string{{"b": "far"}}, want: "near m"},
		{name: "the first include folder wins", files: map[string]string{"m": "#include <b>"}, include: []map[string]string{{}, {"b": "one"}, {"b": "two"}}, want: "one"},
		{name: "a built-in file", files: map[string]string{"m": "#include <core.p4>\nm"}, builtIn: map[string]string{"core.p4": "core"}, want: "core m"},
		{name: "a file of one's own instead of the built-in one", files: map[string]string{"m": "#include <core.p4>\nm", "core.p4": "mine"}, builtIn: map[string]string{"core.p4": "core"}, want: "mine m"},
		{name: "no such file", files: map[string]string{"m": "#include <b>\nm"}, want: "m", err: `the included file "b" is not next to m, nor in an include folder, nor built in`},
		{name: "macros", files: map[string]string{"m": "#define A b c\n#define F(x, y) y x A\nA F(1, (2, 3)) F\n#undef A\nA"}, want: "b c ( 2 , 3 ) 1 b c F A"},
		{name: "a macro over several lines", files: map[string]string{"m": "#define A { \\\n b \\\n}\nA c"}, want: "{ b } c"},
		{name: "macros that name themselves", files: map[string]string{"m": "#define A B\n#define B A\nA B"}, want: "A B"},
		{name: "defines from outside", files: map[string]string{"m": "#ifdef A\nA\n#endif"}, defines: map[string]string{"A": "1 + 2"}, want: "1 + 2"},
		{name: "conditions", files: map[string]string{"m": "#define A 3\n#if A > 2 && !defined(B) && (1 << 2) == 4\na\n#elif 1\nb\n#else\nc\n#endif\n#if A < 2\nd\n#elif A == 3 ? 1 : 0\ne\n#elif 1\nf\n#endif\n#ifndef A\ng\n#else\nh\n#endif"}, want: "a e h"},
		{name: "nothing in what is not read counts", files: map[string]string{"m": "#if 0\n#include <nowhere>\n#error no\n#if 1\na\n#else\nb\n#endif\n#define A\n#endif\n#ifdef A\nc\n#endif\nd"}, want: "d"},
		{name: "a division by zero in a condition", files: map[string]string{"m": "#if 1 / 0\na\n#endif\nb"}, want: "b", err: "this condition cannot be worked out"},
		{name: "files that include each other without end", files: map[string]string{"m": "#include \"m\"\n#include \"x\"", "x": "x"}, want: "x"},
		{name: "no program", files: map[string]string{}, err: "the program m cannot be read: file does not exist"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var rep Report
			src := Source{FS: files(tc.files), Name: "m", BuiltIn: tc.builtIn, Defines: tc.defines}
			if _, ok := tc.files["d/m"]; ok {
				src.Name = "d/m"
			}
			for _, i := range tc.include {
				src.Include = append(src.Include, files(i))
			}
			var words []string
			for _, tok := range Preprocess(src, &rep) {
				if tok.Kind != EOF {
					words = append(words, tok.Text)
				}
			}
			if got := strings.Join(words, " "); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			got := ""
			if len(rep.List) > 0 {
				got = rep.List[0].Message
			}
			if got != tc.err {
				t.Errorf("the first finding is %q, want %q", got, tc.err)
			}
		})
	}
}

// A program of macros that double each other is refused before it fills the memory.
func TestMacrosThatGrow(t *testing.T) {
	text := "#define A0 x x\n"
	for i := range 60 {
		text += "#define A" + string(rune('a'+i%26)) + strings.Repeat("z", i/26) + " "
		prev := "A0"
		if i > 0 {
			prev = "A" + string(rune('a'+(i-1)%26)) + strings.Repeat("z", (i-1)/26)
		}
		text += prev + " " + prev + "\n"
	}
	text += "Ahzz\n"
	var rep Report
	Preprocess(Source{FS: files(map[string]string{"m": text}), Name: "m"}, &rep)
	if !rep.Failed() || !strings.Contains(rep.List[0].Message, "make more than") {
		t.Errorf("the findings are %v", rep.List)
	}
}

// What is nested too deep is refused, and does not use up the stack.
func TestNesting(t *testing.T) {
	for _, text := range []string{
		"const bit<8> A = " + strings.Repeat("(", 100000) + "1",
		"const bit<8> A = " + strings.Repeat("-", 100000) + "1;",
		"const bit<8> A = " + strings.Repeat("{", 100000),
		"const bit<8> A = 1" + strings.Repeat(" + 1", 100000) + ";",
		"const bit<8> A = x" + strings.Repeat(".x", 100000) + ";",
		"control c() { apply " + strings.Repeat("{", 100000),
		"control c() { apply { " + strings.Repeat("if (x) ", 100000),
		"const " + strings.Repeat("tuple<", 100000) + " A = 1;",
		"const " + strings.Repeat("bit<(", 100000) + " A = 1;",
		"#if " + strings.Repeat("(", 100000) + "\n#endif",
		"#if " + strings.Repeat("!", 100000) + "1\n#endif",
		strings.Repeat("#if 1\n", 100000),
	} {
		var rep Report
		Parse(Preprocess(Source{FS: files(map[string]string{"m": text}), Name: "m"}, &rep), &rep)
		if !rep.Failed() {
			t.Errorf("%.60s… is taken", text)
		}
	}
}

// After an error the parser goes on with the next declaration or statement, so that all of these are found.
func TestParserGoesOn(t *testing.T) {
	text := "header a { bit<8> x }\nstruct b { }\ncontrol c() { action x( { } apply { y = ; z(); } }\nconst bit<8> d 3;\ncontrol e() { apply { } }\n"
	var rep Report
	decls := Parse(Preprocess(Source{FS: files(map[string]string{"m": text}), Name: "m"}, &rep), &rep)
	var lines []int
	for _, d := range rep.List {
		lines = append(lines, d.Line)
	}
	var names []string
	for _, d := range decls {
		names = append(names, d.DeclName())
	}
	if len(lines) != 4 || lines[0] != 1 || lines[1] != 3 || lines[2] != 3 || lines[3] != 4 {
		t.Errorf("the findings are %v", rep.List)
	}
	if got := strings.Join(names, " "); got != "a b c d e" {
		t.Errorf("the declarations are %s", got)
	}
}
