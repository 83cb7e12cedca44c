package falcon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/falcon-vm/falcon-go/falcon/internal/fetch"
	"github.com/falcon-vm/falcon-go/falcon/internal/illumos"
)

// propolisRevision is the revision of Propolis whose server is run on illumos:
// the one that upstream's falcon is built against. It speaks API version 2.0.0.
const propolisRevision = "36f20be9bb4c3b362029237f5feb6377c982395f"

// Names of the programs in their folder.
const (
	propolisFile = "propolis-server"
	firmwareFile = "OVMF_CODE.fd"
)

// programSources say where what a node needs on illumos is published.
type programSources struct{ propolis, firmware fetch.Source }

// upstreamSources are those of upstream's falcon.
var upstreamSources = programSources{
	propolis: fetch.Published("https://buildomat.eng.oxide.computer/public/file/oxidecomputer/propolis/falcon/" + propolisRevision + "/" + propolisFile),
	firmware: fetch.Published("https://oxide-falcon-assets.s3.us-west-2.amazonaws.com/" + firmwareFile),
}

// programs are the propolis-server and the firmware of nodes on illumos.
type programs struct {
	home   string // FALCON_HOME
	from   programSources
	runner illumos.Runner

	mu    sync.Mutex
	ready *paths
}

// paths are where the two are, and what the server calls itself.
type paths struct{ propolis, firmware, version string }

// dir is where the programs of the pinned revision are kept.
func (p *programs) dir() string { return filepath.Join(p.home, "bin", propolisRevision) }

// paths says where the programs are, or will be, when own is the user's choice.
func (p *programs) paths(own string) paths {
	s := paths{propolis: own, firmware: filepath.Join(p.dir(), firmwareFile)}
	if own == "" {
		s.propolis = filepath.Join(p.dir(), propolisFile)
	}
	return s
}

// get returns programs that are sound: fetched if they are not there, compared
// with their digests and tried. It does so once for each command.
func (p *programs) get(ctx context.Context, own string, report func(Progress)) (paths, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ready != nil {
		return *p.ready, nil
	}
	s := p.paths(own)
	keep := func(name string, from fetch.Source, mode os.FileMode) error {
		progress := func(done, total int64) {
			report(Progress{Stage: StageImage, Detail: "fetching " + name, Done: done, Total: total})
		}
		_, err := fetch.Keep(ctx, p.dir(), name, from, mode, progress)
		return err
	}
	if own == "" {
		if err := keep(propolisFile, p.from.propolis, 0o755); err != nil {
			return s, fmt.Errorf("%w; or name one of your own (--propolis PATH)", err)
		}
	}
	if err := keep(firmwareFile, p.from.firmware, 0o644); err != nil {
		return s, err
	}
	out, err := p.runner.Run(ctx, illumos.Command{s.propolis, "-V"})
	if err != nil {
		return s, fmt.Errorf("the propolis-server does not run: %w", err)
	}
	s.version = strings.TrimSpace(out)
	p.ready = &s
	return s, nil
}

// check is get for those who only want to know: nothing is fetched.
func (p *programs) check(own string) Check {
	c := Check{Name: "propolis-server", Detail: own}
	if own != "" {
		c.Err = executable(own)
		return c
	}
	c.Detail = fmt.Sprintf("revision %s in %s", propolisRevision, p.dir())
	if !fetch.Kept(p.dir(), propolisFile) || !fetch.Kept(p.dir(), firmwareFile) {
		c.Detail += ", will be fetched"
	}
	return c
}

// executable refuses a file that is no program.
func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("propolis-server: %w", err)
	case info.IsDir() || info.Mode()&0o111 == 0:
		return fmt.Errorf("propolis-server %s is not a program", path)
	}
	return nil
}
