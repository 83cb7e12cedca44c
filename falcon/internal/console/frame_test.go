package console

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const testID = "ABCDEFGH2"

// guestOutput is what the runner prints for a command with this output, taken
// in pieces of the given size, and its status.
func guestOutput(out []byte, status, size int, kind byte) string {
	var b strings.Builder
	rec := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		for range 2 {
			fmt.Fprintf(&b, "\x1e%s %s.\n", testID, text)
		}
	}
	raw := append(bytes.Clone(out), fmt.Sprintf("%s%03d", trailer(testID), status)...)
	n := 0
	for ; len(raw) > 0; raw = raw[min(size, len(raw)):] {
		n++
		text := encodeLines(raw[:min(size, len(raw))], kind)
		if len(text) <= maxShort {
			rec("%c %d %d %c%s", kindShort, n, len(text), kind, text)
			rec("%c %d %d %c%s", kindShort, n, len(text), kind, text)
			continue
		}
		b.WriteString(text + "\n")
		rec("%c %d %d %d", kind, n, len(text), cksum([]byte(text)))
	}
	rec("%c %d", kindEnd, n)
	return strings.ReplaceAll(b.String(), "\n", "\r\n")
}

func encodeLines(p []byte, kind byte) string {
	text, width := base64.StdEncoding.EncodeToString(p), 76
	if kind == kindHex {
		text, width = hex.EncodeToString(p), 32
	}
	var lines []string
	for ; len(text) > width; text = text[width:] {
		lines = append(lines, text[:width])
	}
	return strings.Join(append(lines, text), "\n")
}

// decode feeds console bytes in pieces of a size and returns all that came out.
func decode(console string, size int) (*Decoder, []byte, error) {
	d := NewDecoder(testID)
	var out []byte
	for p := []byte(console); len(p) > 0; p = p[min(size, len(p)):] {
		o, err := d.Feed(p[:min(size, len(p))])
		out = append(out, o...)
		if err != nil {
			return d, out, err
		}
	}
	return d, out, nil
}

func testBytes(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func TestDecoderGivesOutputWhateverTheReadsAre(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 56, 57, 58, 114, 299, 300, 301, 5000, 70000} {
		for _, kind := range []byte{kindBase64, kindHex} {
			for _, read := range []int{1, 7, 1024, 1 << 20} {
				want := testBytes(n)
				d, got, err := decode(guestOutput(want, 42, 4096, kind), read)
				if err != nil || !d.Ended || !d.Exited || d.Status != 42 || !bytes.Equal(got, want) {
					t.Fatalf("%d bytes, %c, reads of %d: %d bytes, status %d, %v", n, kind, read, len(got), d.Status, err)
				}
			}
		}
	}
}

func TestDecoderFindsATrailerThatIsSpreadOverPieces(t *testing.T) {
	want := []byte("some text " + testID + "-" + testID)
	for size := 1; size < 90; size++ {
		d, got, err := decode(guestOutput(want, 7, size, kindBase64), 4096)
		if err != nil || !d.Ended || d.Status != 7 || !bytes.Equal(got, want) {
			t.Fatalf("pieces of %d: %q status %d, %v", size, got, d.Status, err)
		}
	}
}

func TestDecoderSurvivesOtherOutputInTheMiddle(t *testing.T) {
	noises := map[string]string{
		"kernel":            "[   12.345678] random: crng init done\r\n",
		"kernel, no time":   "random: crng init done\r\n",
		"one word":          "Bye\r\n",
		"two lines":         "usb 1-1: new device\r\neth0: link up\r\n",
		"systemd":           "\x1b[0;32m[  OK  ] Started getty.\x1b[0m\r\n",
		"typed key":         "x",
		"cursor query":      "\x1b[6n",
		"half line":         "no line end",
		"empty line":        "\r\n",
		"lines like data":   strings.Repeat("A", 76) + "\r\n",
		"several, no break": "[    1.000000] a\r\n[    1.000001] b\r\n[    1.000002] c\r\n",
	}
	want := testBytes(1200)
	clean := guestOutput(want, 5, 600, kindBase64)
	for name, noise := range noises {
		t.Run(name, func(t *testing.T) {
			restored, damaged := 0, 0
			for at := 0; at <= len(clean); at += 5 {
				d, got, err := decode(clean[:at]+noise+clean[at:], 512)
				switch {
				case err == nil && d.Ended && bytes.Equal(got, want) && d.Status == 5:
					restored++
				case errors.Is(err, ErrDamaged):
					damaged++
				default:
					t.Fatalf("at %d: %d bytes, ended %v, status %d, error %v", at, len(got), d.Ended, d.Status, err)
				}
			}
			// What looks exactly like a line of the encoding cannot be told from one.
			if damaged*40 > restored {
				t.Errorf("%d of %d places could not be restored", damaged, restored+damaged)
			}
		})
	}
}

func TestDecoderSurvivesAKernelMessageInEveryLine(t *testing.T) {
	want := testBytes(60000)
	var noisy strings.Builder
	for i, line := range strings.SplitAfter(guestOutput(want, 0, pieceSize, kindBase64), "\n") {
		if strings.ContainsRune(line, recordStart) || len(line) < 20 {
			noisy.WriteString(line)
			continue
		}
		at := i % len(line)
		fmt.Fprintf(&noisy, "%s[%5d.%06d] eth0: message %d\r\n%s", line[:at], i, i, i, line[at:])
	}
	d, got, err := decode(noisy.String(), 4096)
	if err != nil || !d.Ended || !bytes.Equal(got, want) || d.Noise == 0 {
		t.Fatalf("%d bytes, ended %v, noise %d: %v", len(got), d.Ended, d.Noise, err)
	}
}

func TestDecoderNeverTakesDamageForOutput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "out")
		con := []byte(guestOutput(want, 9, rapid.IntRange(1, 2000).Draw(t, "size"), kindBase64))
		for range rapid.IntRange(1, 4).Draw(t, "hits") {
			at := rapid.IntRange(0, len(con)-1).Draw(t, "at")
			switch rapid.IntRange(0, 2).Draw(t, "how") {
			case 0: // lost
				end := min(len(con), at+rapid.IntRange(1, 50).Draw(t, "n"))
				con = append(con[:at:at], con[end:]...)
			case 1: // changed
				con[at] = rapid.Byte().Draw(t, "b")
			case 2: // inserted
				ins := rapid.SliceOfN(rapid.Byte(), 1, 60).Draw(t, "ins")
				con = append(con[:at:at], append(ins, con[at:]...)...)
			}
			if len(con) == 0 {
				return
			}
		}
		d, got, err := decode(string(con), 700)
		if err == nil && d.Ended && !bytes.Equal(got, want) {
			t.Fatalf("%d wrong bytes taken for the output's %d", len(got), len(want))
		}
		if !bytes.HasPrefix(want, got) {
			t.Fatal("bytes that the command did not print were given out")
		}
	})
}

func TestDecoderReportsMissingPieces(t *testing.T) {
	con := guestOutput(testBytes(2000), 0, 1000, kindBase64)
	from := strings.Index(con, "\x1e"+testID+" b 2")
	to := strings.Index(con, "\x1e"+testID+" e")
	if from < 0 || to < from {
		t.Fatalf("no second piece in %q", con)
	}
	if _, _, err := decode(con[:from]+con[to:], 100); !errors.Is(err, ErrDamaged) {
		t.Errorf("error %v", err)
	}
}

func TestDecoderMemoryIsBounded(t *testing.T) {
	d := NewDecoder(testID)
	for range 3000 {
		if _, err := d.Feed(bytes.Repeat([]byte("flood "), 300)); err != nil {
			t.Fatal(err)
		}
	}
	if n := cap(d.region) + cap(d.rec); n > 3*maxRegion {
		t.Errorf("%d bytes held", n)
	}
	want := testBytes(40000)
	got, err := d.Feed([]byte("\r\n" + guestOutput(want, 0, pieceSize, kindBase64)))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("after the flood: %d bytes, %v", len(got), err)
	}
}

func TestRecordsAreParsedStrictly(t *testing.T) {
	good := map[string]byte{
		testID + " r": kindReady, testID + " a 12": kindAck, testID + " e 0": kindEnd,
		testID + " b 1 88 4294967295": kindBase64, testID + " h 2 99 -": kindHex, testID + " b 1 9 900150983cd24fb0d6963f7d28e17f72": kindBase64, testID + " p 1 4 bYWJj": kindShort, testID + " p 1 0 h": kindShort,
	}
	for text, kind := range good {
		if r, ok := parseRecord(testID, text); !ok || r.kind != kind {
			t.Errorf("%q: %v %v", text, r, ok)
		}
	}
	for _, text := range []string{
		"", testID, testID + " ", testID + " q", testID + " r 1", testID + " a", testID + " a 1 2", testID + " a -1",
		testID + " a 99999999999", testID + " a 1[ 2.3] x", "ABCDEFGH3 r", testID + " p 1 4 bYWJ", testID + " p 1 4 xYWJj", testID + " b 2 ", testID + " b 2", testID + " b 2 9", testID + " b 2 9 zz", testID + "r",
	} {
		if r, ok := parseRecord(testID, text); ok {
			t.Errorf("%q taken for %v", text, r)
		}
	}
}

func TestTypedLinesFitTheSmallestTerminal(t *testing.T) {
	if n := len(bootstrapLine(testID, maxDirect, true)); n > 255 {
		t.Errorf("the bootstrap line has %d bytes", n)
	}
	if n := len(verifyLine(testID)); n > 255 {
		t.Errorf("the verify line has %d bytes", n)
	}
}

func TestEncodePayloadIsUndoneByPrintf(t *testing.T) {
	var all []byte
	for i := 1; i < 256; i++ {
		all = append(all, byte(i), '7')
	}
	want := string(all) + "\\n \\0101 \\c %s end"
	enc := encodePayload(want)
	if i := strings.IndexFunc(enc, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
		t.Errorf("a control byte is typed: %q", enc[i:])
	}
	for _, sh := range []string{"dash", "bash", "ksh93", "busybox"} {
		argv := []string{sh, "-c", `printf %b "$1"`, "x", enc}
		if sh == "busybox" {
			argv = append([]string{sh, "sh"}, argv[1:]...)
		}
		if _, err := exec.LookPath(sh); err != nil {
			t.Logf("%s is not installed", sh)
			continue
		}
		got, err := exec.Command(argv[0], argv[1:]...).Output()
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", sh, got, err)
		}
	}
}

func TestCksumIsThatOfTheProgram(t *testing.T) {
	if _, err := exec.LookPath("cksum"); err != nil {
		t.Skip("cksum is not installed")
	}
	for _, n := range []int{0, 1, 255, 256, 70000} {
		p := testBytes(n)
		cmd := exec.Command("cksum")
		cmd.Stdin = bytes.NewReader(p)
		out, err := cmd.Output()
		if want := fmt.Sprintf("%d %d\n", cksum(p), n); err != nil || string(out) != want {
			t.Errorf("%d bytes: program says %q, we say %q (%v)", n, out, want, err)
		}
	}
}

func FuzzFrameDecoder(f *testing.F) {
	f.Add([]byte(guestOutput([]byte("hello\n"), 0, 4096, kindBase64)), 16)
	f.Add([]byte(guestOutput(testBytes(900), 3, 500, kindHex)), 1)
	f.Add([]byte("\x1e"+testID+" e 0.\n\x1e\x1e"+testID+" p 1 4 bYWJj.\n"), 5)
	f.Fuzz(func(t *testing.T, console []byte, size int) {
		if size < 1 || size > 1<<16 {
			size = 64
		}
		d, _, err := decode(string(console), size)
		if err == nil && d.Ended && !bytes.Contains(console, []byte(testID)) {
			t.Error("an end was seen without the identifier")
		}
		if d.Ended && !d.Exited {
			t.Error("an end without a status passes for success")
		}
	})
}

// FuzzFrameInsertion: whatever is inserted, the output is right or there is an error.
func FuzzFrameInsertion(f *testing.F) {
	f.Add([]byte("[    1.234567] noise\r\n"), 100, 1500)
	f.Add([]byte("AAAA\r\nBBBB"), 77, 600)
	f.Fuzz(func(t *testing.T, noise []byte, at, n int) {
		if n < 0 || n > 20000 || bytes.Contains(noise, []byte(testID)) {
			return
		}
		want := testBytes(n)
		clean := guestOutput(want, 3, 4096, kindBase64)
		at = max(0, min(at, len(clean)))
		d, got, err := decode(clean[:at]+string(noise)+clean[at:], 512)
		if err == nil && d.Ended && (!bytes.Equal(got, want) || d.Status != 3) {
			t.Error("wrong output taken for right")
		}
	})
}
