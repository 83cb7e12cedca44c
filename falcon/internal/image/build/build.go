// Package build makes images by recipe: micro, a kernel with a small user
// space that boots in two seconds, and debian-12, a whole Debian. Packages come
// from wherever the machine's own apt gets them; the machine's package database
// is never touched. No loop device and nothing mounted is needed.
package build

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/falcon-vm/falcon-go/falcon/internal/image"
)

// Builder makes images in a store. The zero value of all but Store works.
type Builder struct {
	Store image.Store
	// Mirror is the URL of a Debian archive to use instead of the sources that
	// the machine's apt has.
	Mirror string
}

// Recipe is an image that can be built.
type Recipe struct {
	Name, Description string

	build func(context.Context, *job) (image.Spec, error)
}

// Recipes lists what can be built, by name.
func Recipes() []Recipe {
	return []Recipe{
		{"debian-12", "Debian 12 with systemd, FRR and network tools", buildDebian},
		{"debian-12-zfs", "debian-12 with OpenZFS and QEMU, to run falcon on ZFS inside", buildDebianZFS},
		{"micro", "Debian kernel with busybox and network tools; boots in 2 s", buildMicro},
	}
}

// job is one build under way.
type job struct {
	dir      string // the draft's folder: the image's files go here
	mirror   string
	progress image.Progress
}

func (j *job) step(what string) { j.progress.Report(image.Step{What: what}) }

// Build makes an image by the recipe of that name. If the image exists, or
// another builder makes it meanwhile, the error is image.ErrExists.
func (b Builder) Build(ctx context.Context, name string, progress image.Progress) (image.Image, error) {
	all := Recipes()
	i, ok := slices.BinarySearchFunc(all, name, func(r Recipe, n string) int { return cmp.Compare(r.Name, n) })
	if !ok {
		return image.Image{}, &image.NotFoundError{Name: name, Hint: Hint(name)}
	}
	draft, err := b.Store.Create(ctx, name, progress)
	if err != nil {
		return image.Image{}, err
	}
	defer draft.Discard()
	j := &job{dir: draft.Dir, mirror: b.Mirror, progress: progress}
	spec, err := all[i].build(ctx, j)
	if err != nil {
		return image.Image{}, fmt.Errorf("building image %q: %w", name, err)
	}
	j.step("storing the image")
	return draft.Commit(ctx, spec)
}

// Ensure returns the image of a name and builds it first if it is not there but
// there is a recipe. Else the error is an *image.NotFoundError with a hint.
func (b Builder) Ensure(ctx context.Context, name string, progress image.Progress) (image.Image, error) {
	img, err := b.Store.Get(ctx, name)
	if !errors.Is(err, image.ErrNotFound) {
		return img, err
	}
	img, err = b.Build(ctx, name, progress)
	if errors.Is(err, image.ErrExists) { // somebody else has just built it
		return b.Store.Get(ctx, name)
	}
	return img, err
}

// Hint says how to come by an image that is not there.
func Hint(name string) string {
	var names []string
	for _, r := range Recipes() {
		if r.Name == name {
			return "build it with: falcon image build " + name
		}
		names = append(names, r.Name)
	}
	if _, ok := image.FindKnown(name); ok {
		return "download it with: falcon image fetch " + name
	}
	return fmt.Sprintf("there is a recipe for %s only; get it with: falcon image import FILE %s", strings.Join(names, " and "), name)
}
