package build

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
)

// debianKeys is where Debian keeps the keys of its archive, on any machine that
// has its package debian-archive-keyring.
const debianKeys = "/usr/share/keyrings/debian-archive-keyring.gpg"

// apt is the machine's apt with state of our own: its sources, keys and
// proxies, but our lists, our cache and an empty package database, so that
// dependencies come out the same on every machine.
type apt struct {
	dir      string
	options  []string
	progress image.Progress
}

func newApt(dir, mirror, release string, progress image.Progress) (*apt, error) {
	a := &apt{dir: dir, progress: progress}
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	status := filepath.Join(dir, "status")
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return nil, err
	}
	for _, o := range []string{
		"Dir::State=" + filepath.Join(dir, "state"), "Dir::State::lists=" + filepath.Join(dir, "state/lists"),
		"Dir::State::status=" + status, "Dir::Cache=" + filepath.Join(dir, "cache"),
		"APT::Sandbox::User=", // its user may not read our folder
		"APT::Install-Recommends=0", "APT::Status-Fd=3", "APT::Update::Post-Invoke-Success::=true",
		"DPkg::Post-Invoke::=true", "Acquire::Languages=none", "Acquire::Retries=2",
	} {
		a.options = append(a.options, "-o", o)
	}
	if mirror == "" {
		return a, nil
	}
	list := filepath.Join(dir, "sources.list")
	a.options = append(a.options, "-o", "Dir::Etc::sourcelist="+list, "-o", "Dir::Etc::sourceparts=-")
	return a, os.WriteFile(list, []byte(sourceLine(mirror, release, mainComponent)+"\n"), 0o644)
}

// mainComponent is the part of Debian's archive that is Debian.
const mainComponent = "main"

// sourceLine is a line of sources.list for Debian's own packages.
func sourceLine(site, release, components string) string {
	signed := ""
	if _, err := os.Stat(debianKeys); err == nil {
		signed = "[signed-by=" + debianKeys + "] "
	}
	return "deb " + signed + site + " " + release + " " + components
}

// get runs apt-get.
func (a *apt) get(ctx context.Context, what, dir string, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := command{
		tool: aptGet, args: append(append([]string{"-q", "-y"}, a.options...), args...), dir: dir,
		status: &aptStatus{what: what, progress: a.progress}, stdout: &out,
	}.run(ctx)
	return out.Bytes(), err
}

func (a *apt) update(ctx context.Context) error {
	const what = "fetching package lists"
	a.progress.Report(image.Step{What: what})
	_, err := a.get(ctx, what, "", "update")
	return err
}

// closure downloads packages with all that they depend on, and returns the files.
func (a *apt) closure(ctx context.Context, packages ...string) ([]string, error) {
	const what = "downloading packages"
	if _, err := a.get(ctx, what, "", append([]string{"install", "--download-only"}, packages...)...); err != nil {
		return nil, err
	}
	return filepath.Glob(filepath.Join(a.dir, "cache/archives/*.deb"))
}

// download fetches one package without what it depends on.
func (a *apt) download(ctx context.Context, pkg string) (string, error) {
	dir, err := os.MkdirTemp(a.dir, "deb-")
	if err != nil {
		return "", err
	}
	if _, err := a.get(ctx, "downloading "+pkg, dir, "download", pkg); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("apt-get download %s left %d files: %w", pkg, len(debs), err)
	}
	return debs[0], nil
}

// kernelPackage is the package that the newest generic kernel is in.
func (a *apt) kernelPackage(ctx context.Context) (string, error) {
	out, err := a.get(ctx, "choosing a kernel", "", "install", "--print-uris", "linux-image-amd64")
	if err != nil {
		return "", err
	}
	// 'http://site/pool/…/linux-image-6.1.0-1-amd64_6.1.1-1_amd64.deb' linux-image-…
	for _, line := range strings.Split(string(out), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		name, _, _ := strings.Cut(fields[1], "_")
		if strings.HasPrefix(name, "linux-image-") && name != "linux-image-amd64" {
			return name, nil
		}
	}
	return "", fmt.Errorf("apt knows no kernel for package linux-image-amd64")
}

// sources are the lines of sources.list by which the machine gets Debian's own
// packages, for a release.
func (a *apt) sources(ctx context.Context, release, components string) ([]string, error) {
	host, err := hostRelease()
	if err != nil {
		return nil, err
	}
	out, err := a.get(ctx, "", "", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)", "Created-By: Packages")
	if err != nil {
		return nil, err
	}
	lines := sourcesOf(string(out), host, release, components)
	if len(lines) == 0 {
		return nil, fmt.Errorf("this machine's apt knows no Debian archive: name one with --mirror")
	}
	return lines, nil
}

// sourcesOf chooses Debian's own among apt's index targets, each a line with
// site, release and component. The host may be of another release than the one
// that is wanted; the archive has that too, under its own name. So it has its
// other components, of which the machine need not know.
func sourcesOf(targets, host, release, components string) []string {
	var lines []string
	for line := range strings.Lines(targets) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != mainComponent || (f[1] != host && !strings.HasPrefix(f[1], host+"-")) {
			continue
		}
		l := sourceLine(f[0], release+strings.TrimPrefix(f[1], host), components)
		if !slices.Contains(lines, l) {
			lines = append(lines, l)
		}
	}
	return lines
}

// aptStatus turns the lines that apt writes to its status descriptor, such as
// "dlstatus:1:20.5:Retrieving file 1 of 5", into progress.
type aptStatus struct {
	what     string
	progress image.Progress
	rest     []byte
}

func (s *aptStatus) Write(p []byte) (int, error) {
	s.rest = append(s.rest, p...)
	for {
		line, rest, found := bytes.Cut(s.rest, []byte("\n"))
		if !found {
			return len(p), nil
		}
		s.rest = rest
		if f := strings.SplitN(string(line), ":", 4); len(f) == 4 && f[0] == "dlstatus" {
			if percent, err := strconv.ParseFloat(f[2], 64); err == nil {
				s.progress.Report(image.Step{What: s.what, Done: int64(percent), Total: 100})
			}
		}
	}
}
