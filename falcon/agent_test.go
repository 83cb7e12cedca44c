package falcon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/state"
	"github.com/falcon-vm/falcon-go/internal/agent"
	"github.com/falcon-vm/falcon-go/internal/mux"
	"github.com/falcon-vm/falcon-go/propolis"
)

// An agent that does not fit is named with the command that cures it, and those
// who can do without an agent do.
func TestAgentsOfOtherVersionsAreRefusedWithACure(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(net.Conn)
		image  string
		words  []string
	}{
		"a protocol of another time": {
			answer: func(c net.Conn) { mux.Refuse(c, &mux.VersionError{Min: 7, Max: 9}) }, image: "micro",
			words: []string{"versions 7 to 9", "falcon image rm micro && falcon image build micro"},
		},
		"an agent of another time": {
			answer: func(c net.Conn) {
				if mux.Join(c) == nil {
					_ = agent.NewSender(c).Send(agent.Done, agent.Info{Version: "1"}.Encode())
				}
			}, image: "alpine",
			words: []string{"version 1", "falcon image build NAME --agent-into alpine"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			// Not t.TempDir, whose path may be too long for a socket's.
			dir, err := os.MkdirTemp("", "fa-")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			folder, err := state.Open(filepath.Join(dir, "lab"))
			if err == nil {
				err = folder.Create()
			}
			if err != nil {
				t.Fatal(err)
			}
			l := &lab{folder: folder, host: noServers{}, log: slog.New(slog.DiscardHandler)}
			listener, err := net.Listen("unix", folder.File("violin"+agentExt))
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go func() {
				for {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					_, _ = c.Read(make([]byte, 64)) // what it asks
					tt.answer(c)
					c.Close()
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			a, err := l.answeringAgent(ctx, &NodePlan{Name: "violin", Image: tt.image}, agentPatience)
			var version *AgentVersionError
			if a != nil || !errors.As(err, &version) || !errors.Is(err, errAgentSilent) {
				t.Fatalf("%v, %v", a, err)
			}
			for _, w := range tt.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in: %v", w, err)
				}
			}
		})
	}
}

// noServers is a host on which no node has a server.
type noServers struct{ host }

func (noServers) client(*state.Folder, string) (*propolis.Client, error) {
	return nil, errors.New("there is none")
}
