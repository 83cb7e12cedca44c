package falcon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
	"github.com/falcon-vm/falcon-go/falcon/internal/image/build"
	"github.com/falcon-vm/falcon-go/propolis"
)

// What the guest of an image is that gets an agent. Each node of the image is
// told its own host name later; until then it has this one.
const (
	agentNode    = "localhost"
	agentCores   = 1
	agentMemory  = 512 << 20 // in less, UEFI firmware runs out of it
	agentTimeout = 10 * time.Minute
)

// InstallAgent makes an image that is base with this program's guest agent in
// it, and stands on base. It boots a guest of base, which must be a Linux with a
// login that falcon knows, gives it the agent on a disk of its own, has the agent
// install itself, and stops the guest. Whatever else the guest did at its boot is
// in the image too.
func InstallAgent(ctx context.Context, base, name string, progress image.Progress) (_ image.Image, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("making image %q of %s with a guest agent: %w", name, base, err)
		}
	}()
	store, err := Images()
	if err != nil {
		return image.Image{}, err
	}
	if err := canGetAgent(ctx, store, base, name); err != nil {
		return image.Image{}, err
	}
	dir, discard, err := image.WorkFolder(store.Home(), "agent")
	if err != nil {
		return image.Image{}, err
	}
	defer discard()
	program, version, err := build.Agent(ctx, dir, progress)
	if err != nil {
		return image.Image{}, err
	}
	disk := filepath.Join(dir, "agent.raw")
	if err := os.WriteFile(disk, agentDisk(program), 0o600); err != nil {
		return image.Image{}, err
	}
	t := New("falcon_agent")
	t.Dir = filepath.Join(dir, image.WorkLab)
	t.Progress = func(p Progress) {
		progress.Report(image.Step{What: strings.TrimSpace("guest: " + string(p.Stage) + " " + p.Detail)})
	}
	n := t.Node(agentNode, base, agentCores, agentMemory).Cold().
		Component("agent_disk", propolis.VirtioDisk{BackendID: "agent_disk_backing", PCIPath: propolis.PCIPath{Device: 30}}).
		Component("agent_disk_backing", propolis.FileStorageBackend{Path: disk, Readonly: true, BlockSize: agentBlock})
	defer func() {
		// Its disk becomes part of the image, and the guest is of no more use.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, t.Destroy(clean))
	}()
	if err := t.Launch(ctx); err != nil {
		return image.Image{}, err
	}
	progress.Report(image.Step{What: "installing the agent"})
	r, err := n.Exec(ctx, agentInstallScript, WithTimeout(agentTimeout))
	if err == nil && r.Status != 0 {
		err = fmt.Errorf("exit status %d: %s", r.Status, strings.TrimSpace(string(r.Output)))
	}
	if err != nil {
		return image.Image{}, fmt.Errorf("installing the agent in the guest: %w", err)
	}
	progress.Report(image.Step{What: "stopping the guest"})
	if err := n.Stop(ctx); err != nil {
		return image.Image{}, err
	}
	if err := t.Snapshot(ctx, agentNode, name, SnapshotOptions{}); err != nil {
		return image.Image{}, err
	}
	if err := store.SetAgent(ctx, name, version); err != nil {
		return image.Image{}, errors.Join(err, store.Remove(ctx, name))
	}
	return store.Get(ctx, name)
}

// canGetAgent says why an image cannot get an agent, before anything is made.
func canGetAgent(ctx context.Context, store image.Store, base, name string) error {
	if err := image.ValidName(name); err != nil {
		return err
	}
	switch _, err := store.Get(ctx, name); {
	case err == nil:
		return fmt.Errorf("%w: choose another name, or remove it first: falcon image rm %s", image.ErrExists, name)
	case !errors.Is(err, image.ErrNotFound):
		return err
	}
	img, err := store.Get(ctx, base)
	var missing *image.NotFoundError
	switch {
	case errors.As(err, &missing):
		missing.Hint = build.Hint(base)
		return err
	case err != nil:
		return err
	case isIllumosGuest(img.OS):
		return fmt.Errorf("its system is %s, and the agent is for Linux", img.OS)
	case !img.Console.Known:
		return fmt.Errorf("it has no login that falcon knows: import it again with --user, and --password, --login, --prompt where its console needs them; or install the agent by hand and import it with --agent")
	}
	return nil
}

// agentBlock is the size of the agent disk's blocks.
const agentBlock = 512

// agentDisk is a disk with a program: in the first block is a word by which the
// guest finds it and how many blocks follow.
func agentDisk(program []byte) []byte {
	blocks := (len(program) + agentBlock - 1) / agentBlock
	disk := bytes.Repeat([]byte("\n"), agentBlock)
	copy(disk, fmt.Sprintf("%s %d", agentName, blocks))
	disk = append(disk, program...)
	// Some more, so that it is as large as any system wants a disk to be.
	return append(disk, make([]byte, 1<<20-len(disk)%(1<<20))...)
}

// agentInstallScript has a guest install the agent from its disk.
const agentInstallScript = `set -e
device=
for d in /dev/vd? /dev/sd?; do
	word= blocks=
	{ read -r word blocks <"$d"; } 2>/dev/null || continue
	[ "$word" != ` + agentName + ` ] || { device=$d; break; }
done
[ "$device" ] || { echo "the guest does not find the disk with the agent"; exit 1; }
umask 022
mkdir -p /usr/lib/falcon
program=/usr/lib/falcon/falcon-agent
dd if="$device" of=$program.new bs=512 skip=1 count="$blocks" 2>/dev/null
chmod 755 $program.new
mv -f $program.new $program
$program install
sync`
