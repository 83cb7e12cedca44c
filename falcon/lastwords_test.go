package falcon

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/propolis"
)

// deafHost is a host whose servers hang up.
type deafHost struct {
	host
	at string
}

func (h deafHost) client(*state.Folder, string) (*propolis.Client, error) {
	return propolis.NewClient("unix:" + h.at)
}

// dyingServer says its last words after it has hung up.
type dyingServer chan struct{}

func (s dyingServer) Done() <-chan struct{} { return s }
func (s dyingServer) Err() error            { return errors.New("exit status 1") }

// A server that cannot start hangs up first, and then says why.
func TestTheLastWordsOfAServerAreWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	folder, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server := make(dyingServer)
	go func() {
		for conn, err := listener.Accept(); err == nil; conn, err = listener.Accept() {
			conn.Close()
		}
	}()
	time.AfterFunc(200*time.Millisecond, func() {
		if err := os.WriteFile(folder.File("violin"+errExt), []byte("Error: the password is bad\n"), 0o600); err != nil {
			t.Error(err)
		}
		close(server)
	})
	l := &lab{folder: folder, host: deafHost{at: path}}
	err = l.attend(t.Context(), server, &NodePlan{Name: "violin"}, nodeStart{}, func(context.Context, *propolis.Client) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "the password is bad") {
		t.Errorf("the error is %v", err)
	}
}
