package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/falcon-vm/falcon-go/propolis"
)

// serialWith runs serial with text as its input, against a guest.
func serialWith(t *testing.T, input string, guest func(net.Conn), end error) outcome {
	t.Helper()
	ours, theirs := net.Pipe()
	go guest(theirs)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.WriteString(w, input); err != nil {
		t.Fatal(err)
	}
	w.Close()
	p := testProgram{lab: fakeLab{nodes: map[string]*fakeNode{"violin": {console: endingConn{ours, end}}}}}
	root := p.app(t).root
	var stdout, stderr bytes.Buffer
	root.SetIn(r)
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	status := Execute(t.Context(), root, []string{"serial", "violin"})
	return outcome{status, stdout.String(), stderr.String()}
}

// endingConn is a connection whose reading ends with an error of choice.
type endingConn struct {
	net.Conn
	end error
}

func (c endingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		err = c.end
	}
	return n, err
}

func TestSerialSendsPipedInputAndShowsTheAnswer(t *testing.T) {
	got := serialWith(t, "uname\n", func(guest net.Conn) {
		line, _ := bufio.NewReader(guest).ReadString('\n')
		fmt.Fprintf(guest, "you said %s", line)
	}, io.EOF)
	if got.status != 0 || got.stdout != "you said uname\n" {
		t.Errorf("%+v", got)
	}
}

func TestSerialEndsWithTheMachine(t *testing.T) {
	goodbye := func(guest net.Conn) {
		fmt.Fprint(guest, "bye")
		guest.Close()
	}
	if got := serialWith(t, "", goodbye, propolis.ErrVMStopped); got.status != 0 || got.stdout != "bye" || !strings.Contains(got.stderr, "violin ended") {
		t.Errorf("when the machine stops: %+v", got)
	}
	if got := serialWith(t, "", goodbye, io.ErrUnexpectedEOF); got.status != 1 || !strings.Contains(got.stderr, "ring: console of node violin") {
		t.Errorf("when the server goes away: %+v", got)
	}
}
