package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// agentThat returns a client of an agent which answers by a function, and then
// swallows whatever comes.
func agentThat(answers func(s *Sender, r *Receiver)) *Client {
	return New(func(context.Context) (io.ReadWriteCloser, error) {
		host, guest := net.Pipe()
		go func() { answers(NewSender(guest), NewReceiver(guest)) }()
		return host, nil
	})
}

// An agent that answers and then hangs does not hold up who calls it.
func TestAnAgentThatFallsSilentIsNotWaitedForForEver(t *testing.T) {
	source := filepath.Join(t.TempDir(), "big")
	check(t, os.WriteFile(source, bytes.Repeat([]byte("x"), 10*MaxMessage), 0o600))
	target := t.TempDir()
	asked := func(s *Sender, r *Receiver) { _, _, _ = r.Receive() }
	for name, tt := range map[string]struct {
		answers func(s *Sender, r *Receiver)
		call    func(*Client) error
		limit   time.Duration
		words   []string
	}{
		"a copy from it, at once": {asked, func(c *Client) error { return c.CopyFrom(context.Background(), "/x", target, nil) }, lookSilence, []string{"what is to be copied"}},
		"a copy from it, in the middle": {func(s *Sender, r *Receiver) {
			asked(s, r)
			_ = s.Send(Size, Number(100))
			_ = s.Send(File, Entry{Path: ".", Mode: 0o600, Size: 100}.Encode())
			_ = s.Send(Data, make([]byte, 50))
		}, func(c *Client) error { return c.CopyFrom(context.Background(), "/x", target, nil) }, copySilence, []string{"the rest of what is copied", "bytes had passed"}},
		"a copy to it, in the middle": {func(s *Sender, r *Receiver) { asked(s, r); asked(s, r) },
			func(c *Client) error { return c.CopyTo(context.Background(), source, "/x", nil) }, copySilence, []string{"its taking what is copied"}},
		"a copy to it, at the end": {func(s *Sender, r *Receiver) {
			for {
				if k, _, err := r.Receive(); k == End || err != nil {
					return
				}
			}
		}, func(c *Client) error { return c.CopyTo(context.Background(), source, "/x", nil) }, copySilence, []string{"that the copy is whole", "all had been sent"}},
		"a freeze": {asked, func(c *Client) error { _, err := c.Freeze(context.Background(), time.Second); return err }, freezeSilence, []string{"frozen"}},
		"a thaw": {func(s *Sender, r *Receiver) { asked(s, r); _ = s.Send(Done, EncodeTexts([]string{"/"})); asked(s, r) },
			func(c *Client) error {
				f, err := c.Freeze(context.Background(), time.Second)
				if err != nil {
					return err
				}
				time.Sleep(time.Hour) // as long as it is frozen nothing is awaited
				return f.Thaw()
			}, time.Hour + thawSilence, []string{"thawed", "they were frozen"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				err := tt.call(agentThat(tt.answers))
				var silence *SilenceError
				if !errors.As(err, &silence) || !silence.Timeout() {
					t.Fatalf("error %v", err)
				}
				for _, w := range tt.words {
					if !strings.Contains(err.Error(), w) {
						t.Errorf("the error lacks %q: %v", w, err)
					}
				}
				if took := time.Since(begun); took != tt.limit {
					t.Errorf("it took %v, want %v", took, tt.limit)
				}
			})
		})
	}
	if left, _ := os.ReadDir(target); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

// One that is slow is waited for, however long the whole takes.
func TestACopyThatGetsOnHasNoDeadline(t *testing.T) {
	target := filepath.Join(t.TempDir(), "x")
	synctest.Test(t, func(t *testing.T) {
		c := agentThat(func(s *Sender, r *Receiver) {
			_, _, _ = r.Receive()
			_ = s.Send(Size, Number(100))
			_ = s.Send(File, Entry{Path: ".", Mode: fs.FileMode(0o600), Size: 100}.Encode())
			for range 100 {
				time.Sleep(copySilence - time.Second)
				_ = s.Send(Data, []byte("x"))
			}
			_ = s.Send(End, nil)
		})
		if err := c.CopyFrom(context.Background(), "/x", target, nil); err != nil {
			t.Error(err)
		}
	})
	if data, err := os.ReadFile(target); err != nil || len(data) != 100 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

// What an agent says of a failure is a guest's to choose.
func TestWordsOfAnAgentAreHarmless(t *testing.T) {
	const hostile = "\x1b[2J\u009b31m\u202e\xff end"
	for k, name := range map[Kind]string{Failed: "a failure", Unknown: "a version"} {
		c := agentThat(func(s *Sender, r *Receiver) { _, _, _ = r.Receive(); _ = s.Send(k, []byte(hostile)) })
		_, err := c.Ping(t.Context())
		if err == nil || strings.ContainsAny(err.Error(), "\x1b\u009b\u202e") || !strings.Contains(err.Error(), " end") {
			t.Errorf("%s: %q", name, err)
		}
	}
	in := tree(t, Entry{Path: ".", Mode: fs.ModeDir | 0o755}, Entry{Path: hostile, Mode: fs.ModeSocket})
	if err := unpack(bytes.NewReader(in), Tree{Path: filepath.Join(t.TempDir(), "x")}, Keep{}); err == nil || strings.ContainsAny(err.Error(), "\x1b\u009b\u202e") {
		t.Errorf("a name: %q", err)
	}
}
