package printable

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestWordsOfOthers(t *testing.T) {
	for in, want := range map[string]struct{ text, line string }{
		"plain, größer, 日本":  {"plain, größer, 日本", "plain, größer, 日本"},
		"a\r\nb\tc":          {"a\nb\tc", `a\r\nb\tc`},
		"\x1b[2J\x1b]0;x\a":  {`\x1b[2J\x1b]0;x\a`, `\x1b[2J\x1b]0;x\a`},
		"over\rwritten\b\b":  {`over\rwritten\b\b`, `over\rwritten\b\b`},
		"c1 \u009b31m\u0085": {`c1 \u009b31m\u0085`, `c1 \u009b31m\u0085`},
		"raw c1 \x9b31m":     {`raw c1 \x9b31m`, `raw c1 \x9b31m`},
		"turn \u202egnp.exe": {`turn \u202egnp.exe`, `turn \u202egnp.exe`},
		"is\u2066olate":      {`is\u2066olate`, `is\u2066olate`},
		"\x00\x7f\u2028":     {`\x00\x7f\u2028`, `\x00\x7f\u2028`},
		"a real \ufffd":      {"a real \ufffd", "a real \ufffd"},
		"it's 'quoted'":      {"it's 'quoted'", "it's 'quoted'"},
	} {
		if got := Text(in); got != want.text {
			t.Errorf("text of %q: %q", in, got)
		}
		if got := Line(in); got != want.line {
			t.Errorf("line of %q: %q", in, got)
		}
	}
}

// Whatever is said, nothing of it reaches a terminal that is not seen, and a
// document of JSON stays the same document.
func TestNothingUnseenIsLeft(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) + rapid.String().Draw(t, "text")
		for _, got := range []string{Line(s), strings.NewReplacer("\n", "", "\t", "").Replace(Text(s))} {
			for _, r := range got {
				if !unicode.IsGraphic(r) || !utf8.ValidString(got) {
					t.Fatalf("%q became %q", s, got)
				}
			}
		}
		document, _ := json.Marshal(map[string]string{"said": strings.ToValidUTF8(s, "?")})
		var was, is map[string]string
		safe := JSON(document)
		if err := json.Unmarshal(safe, &is); err != nil {
			t.Fatal(err)
		}
		_ = json.Unmarshal(document, &was)
		if was["said"] != is["said"] || Line(string(safe)) != string(safe) {
			t.Fatalf("%s became %s", document, safe)
		}
	})
}

// However it is cut, the same comes out.
func TestWritersEscapeAcrossWrites(t *testing.T) {
	const said = "größe\r\n\x1b[31m日本\u202e \u009b end\n"
	for size := 1; size < len(said); size++ {
		var b strings.Builder
		w := Writer(&b)
		for rest := said; rest != ""; rest = rest[min(size, len(rest)):] {
			if _, err := w.Write([]byte(rest[:min(size, len(rest))])); err != nil {
				t.Fatal(err)
			}
		}
		if b.String() != Text(said) {
			t.Errorf("in pieces of %d: %q", size, b.String())
		}
	}
}

func TestAWordIsOneOfAShells(t *testing.T) {
	for word, want := range map[string]string{
		"/labs/a-1_b.c": "/labs/a-1_b.c",
		"":              "''",
		"/my labs/a":    "'/my labs/a'",
		"/a'b;$(c)":     `'/a'\''b;$(c)'`,
		"/a\nb":         "'/a\nb'",
	} {
		if got := Word(word); got != want {
			t.Errorf("Word(%q) = %s, want %s", word, got, want)
		}
	}
}
